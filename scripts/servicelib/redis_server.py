"""A Redis of our own: in memory only, on a free loopback port."""

from __future__ import annotations

from pathlib import Path

from servicelib.getting import docker_answers, docker_run, program
from servicelib.processes import connect, free_ports
from servicelib.records import Launch, Missing, Started
from servicelib.servers import bring_up, launch, new_folder

IMAGE = "redis:7-alpine"
IN_MEMORY = ("--save", "", "--appendonly", "no")
SECONDS = 20.0


def start(home: Path, count: int) -> list[Started]:
    """Start Redis in its folder and wait until it answers PING."""
    binary = program("redis-server", "redis-server")
    if binary is None and not docker_answers():
        raise Missing(
            "no redis-server on the PATH, apt-get could not bring it (it needs root), and no Docker engine "
            "answers: install Redis, or set KAMA_TEST_REDIS_URL to one that may be emptied"
        )
    return bring_up(home, lambda: {"redis": _attempt(binary, home / "redis")}, ready, SECONDS)


def ready(started: Started) -> bool:
    """Whether it answers PING."""
    try:
        with connect(started.port) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _attempt(binary: str | None, folder: Path) -> Started:
    new_folder(folder)
    [port] = free_ports(1)
    started = Started(url=f"redis://127.0.0.1:{port}/0", port=port)
    if binary is None:
        return docker_run(folder, started, IMAGE, f"{port}:6379", "redis-server", *IN_MEMORY)
    where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--daemonize", "no")
    return launch(folder, Launch((binary, *where, *IN_MEMORY), cwd=str(folder)), started)
