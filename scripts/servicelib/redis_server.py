"""A Redis of our own: in memory only, on a free loopback port."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from servicelib.getting import docker_answers, docker_run, program
from servicelib.processes import began, free_port, wait_until
from servicelib.records import Missing, Started

VARIABLE = "KAMA_TEST_REDIS_URL"
IMAGE = "redis:7-alpine"
IN_MEMORY = ("--save", "", "--appendonly", "no")
ATTEMPTS = 3


def start(folder: Path) -> Started:
    """Start Redis in the folder and wait until it answers PING."""
    binary = program("redis-server", package="redis-server")
    if binary is None and not docker_answers():
        raise Missing(
            "no redis-server on the PATH, apt-get could not bring it (it needs root), and no Docker engine "
            f"answers: install Redis, or set {VARIABLE} to one that may be emptied"
        )
    for _ in range(ATTEMPTS):
        # The port is free when we look, and may be somebody else's when Redis takes it: then look again.
        started = _start_on(free_port(), binary, folder)
        if started is not None:
            return started
    raise Missing(f"Redis did not come up: {_last_words(folder)}")


def _start_on(port: int, binary: str | None, folder: Path) -> Started | None:
    started = _start_container(folder, port) if binary is None else _start_process(binary, folder, port)
    if wait_until(lambda: answers(port) or not started.alive(), seconds=20) and started.alive():
        return started
    started.end()
    return None


def answers(port: int) -> bool:
    """Whether a Redis on that port answers PING."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def _start_process(binary: str, folder: Path, port: int) -> Started:
    where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--daemonize", "no")
    with (folder / "log").open("wb") as log:
        # A session of its own: a Ctrl-C in this terminal is for the tests, Redis must outlive them.
        process = subprocess.Popen(
            [binary, *where, *IN_MEMORY],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return Started(url=_url(port), pid=process.pid, beginning=began(process.pid)).write(folder)


def _start_container(folder: Path, port: int) -> Started:
    container = docker_run(IMAGE, f"127.0.0.1:{port}:6379", "redis-server", *IN_MEMORY)
    return Started(url=_url(port), container=container).write(folder)


def _last_words(folder: Path) -> str:
    log = folder / "log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
