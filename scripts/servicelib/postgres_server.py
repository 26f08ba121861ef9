"""A PostgreSQL of our own: the server's usual durability, little memory, on a free loopback port.

It refuses to run as root: then its processes and its data are those of a user with fewer rights.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from servicelib.getting import docker_answers, docker_run, program
from servicelib.processes import connect, free_ports, receive
from servicelib.records import Launch, Missing, Started
from servicelib.servers import LOG, as_user, bring_up, last_words, launch, new_folder

IMAGE = "postgres:17-alpine"
# Where packages put the server: not on the PATH, as several versions may be there.
PACKAGED = "/usr/lib/postgresql/*/bin/postgres"
NAME = "kama"  # the database, and its owner
SECONDS = 30.0
# A process that was killed keeps its id until its parent has asked for it, which may be never. PostgreSQL
# would take that for a server that still runs on the data, unless it is told that this is a parent of its
# own; whether any process still uses the data it finds out all the same.
PREDECESSOR = "PG_GRANDPARENT_PID"


def start(home: Path, count: int) -> list[Started]:
    """Start PostgreSQL with an empty database and wait until it takes connections."""
    binary = program("postgres", "postgresql", elsewhere=PACKAGED)
    if binary is None and not docker_answers():
        raise Missing(
            "no PostgreSQL server found, apt-get could not bring it (it needs root), and no Docker engine "
            "answers: install PostgreSQL, or set KAMA_TEST_POSTGRES_URL to one that may be emptied"
        )
    folder = home / "postgres"
    return bring_up(
        home, lambda: {"postgres": _container(folder) if binary is None else _process(binary, folder)}, ready, SECONDS
    )


def ready(started: Started) -> bool:
    """Whether it asks a client who comes for the password: while it starts or recovers it sends him away."""
    words = f"user\0{NAME}\0database\0{NAME}\0\0".encode()
    try:
        with connect(started.port) as connection:
            connection.sendall(struct.pack(">ihh", len(words) + 8, 3, 0) + words)
            return receive(connection, 1) == b"R"
    except OSError:
        return False


def _url(port: int, password: str) -> str:
    return f"postgresql+asyncpg://{NAME}:{password}@127.0.0.1:{port}/{NAME}"


def _process(binary: str, folder: Path) -> Started:
    new_folder(folder)
    [port] = free_ports(1)
    user = _unprivileged()
    place = _place(folder, user)
    password = secrets.token_urlsafe(16)
    started = Started(url=_url(port, password), port=port, scratch=None if place == folder else str(place))
    started.write(folder)  # already now, for the place that may be elsewhere
    data = place / "data"
    # The real file, not a link on the PATH: the programs that belong to it are beside it.
    server = Path(binary).resolve()
    _make_data(server, data, user, password, folder)
    command = (str(server), "-D", str(data), *_settings(port))
    # Its ordinary stop waits until the last client has left: the fast one sends them away.
    how = Launch(command, str(place), user, stop="SIGINT", discard="SIGINT", predecessor=PREDECESSOR)
    return launch(folder, how, started)


def _settings(port: int) -> list[str]:
    values = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        # The path of a socket has to be short, that of a checkout may be long: loopback is enough.
        "unix_socket_directories": "",
        "shared_buffers": "32MB",
        "max_connections": 100,
        "logging_collector": "off",
    }
    return [word for name, value in values.items() for word in ("-c", f"{name}={value}")]


def _unprivileged() -> str | None:
    """A user for a server that refuses to be root's; None: we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise Missing("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`")


def _place(folder: Path, user: str | None) -> Path:
    """A folder that the user can work in: ours, unless it lies in one that is closed to others."""
    if user is None:
        return folder
    shutil.chown(folder, user)
    reached = subprocess.run(["test", "-w", str(folder)], cwd="/", check=False, **as_user(user))
    if reached.returncode == 0:
        return folder
    place = Path(tempfile.mkdtemp(prefix="kama-postgres-"))
    shutil.chown(place, user)
    return place


def _make_data(server: Path, data: Path, user: str | None, password: str, folder: Path) -> None:
    """A new cluster with the owner's password and the empty database."""
    secret = data.parent / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if user is not None:
        shutil.chown(secret, user)
    make = [str(server.with_name("initdb")), "-D", str(data), f"--username={NAME}", f"--pwfile={secret}"]
    # What is made here is not worth a wait for the disk; what the server writes later is synced as usual.
    make += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
    _quietly(make, "", data.parent, user, folder)
    secret.unlink()
    alone = [str(server), "--single", "-F", "-D", str(data), "postgres"]
    _quietly(alone, f"CREATE DATABASE {NAME}\n", data.parent, user, folder)


def _quietly(command: list[str], text: str, cwd: Path, user: str | None, folder: Path) -> None:
    with (folder / LOG).open("ab") as log:
        done = subprocess.run(
            command, input=text.encode(), stdout=log, stderr=log, cwd=cwd, check=False, **as_user(user)
        )
    if done.returncode != 0:
        raise Missing(f"{Path(command[0]).name} failed: {last_words(folder)}")


def _container(folder: Path) -> Started:
    new_folder(folder)
    [port] = free_ports(1)
    password = secrets.token_urlsafe(16)
    environment = {"POSTGRES_USER": NAME, "POSTGRES_DB": NAME, "POSTGRES_PASSWORD": password}
    started = Started(url=_url(port, password), port=port)
    return docker_run(folder, started, IMAGE, f"{port}:5432", environment=environment)
