"""The real services: where they are, a database of the benchmark's own in each, and the CPU that each has taken."""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

_TICKS = os.sysconf("SC_CLK_TCK")
_REDIS_DATABASE = 15
# As the tests do, which take another database then.
_CLAIM = "kama:test:claimed"
_CLAIM_SECONDS = 900


class NoService(Exception):
    """A service that the part needs is not there."""


@dataclass(frozen=True, slots=True)
class Places:
    """Servers that may be filled and emptied: those of `scripts/services`."""

    kafka: str
    redis: str
    postgres: str

    @classmethod
    def find(cls) -> Places:
        """Raises NoService."""
        return cls(
            _variable("KAMA_TEST_KAFKA_BOOTSTRAP_SERVERS"),
            f"{_variable('KAMA_TEST_REDIS_URL').rpartition('/')[0]}/{_REDIS_DATABASE}",
            _variable("KAMA_TEST_POSTGRES_URL"),
        )

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each service's processes so far."""
        return {"kafka": _cpu_at(self.kafka), "redis": _cpu_at(self.redis), "postgres": _cpu_at(self.postgres)}

    @asynccontextmanager
    async def empty_redis(self) -> AsyncIterator[Redis]:
        """A client of the benchmark's own database, emptied after. Raises NoService while another run has it."""
        async with Redis.from_url(self.redis) as client:
            if not await client.set(_CLAIM, 1, nx=True, ex=_CLAIM_SECONDS):
                raise NoService(f"another run has {self.redis}, or was killed less than {_CLAIM_SECONDS} s ago")
            try:
                yield client
            finally:
                await client.flushdb()

    @asynccontextmanager
    async def new_postgres(self) -> AsyncIterator[str]:
        """The URL of an empty database, dropped after."""
        name = new_name("scale")
        engine = create_async_engine(self.postgres, isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                await connection.exec_driver_sql(f"CREATE DATABASE {name}")
            try:
                yield make_url(self.postgres).set(database=name).render_as_string(hide_password=False)
            finally:
                async with engine.connect() as connection:
                    await connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            await engine.dispose()


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise NoService(
            f"{name} is not set: scripts/services run kafka redis postgres -- .venv/bin/python -m benchmarks.scale"
        )
    return value


def new_name(prefix: str) -> str:
    """One that nobody else has."""
    return f"{prefix}_{uuid.uuid4().hex}"


# --- what a server's processes took --------------------------------------------------------------------


def _cpu_at(url: str) -> float:
    place = urlsplit(url if "://" in url else f"tcp://{url.partition(',')[0]}")
    return family_cpu_seconds(_listener(place.port or 0))


def family_cpu_seconds(pid: int) -> float:
    """Of the process, of its children, and of those it had."""
    own = _stat(pid)
    children = [_stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()]
    ticks = sum(own[11:15]) + sum(sum(stat[11:13]) for stat in children if stat and stat[1] == pid)
    return ticks / _TICKS


def _stat(pid: int) -> list[int]:
    """The numbers of /proc/<pid>/stat from the third field on; the state is 0. Empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [0, *map(int, fields[1:16])]


def _listener(port: int) -> int:
    """The process that listens on a loopback port. Raises NoService."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and inodes & _open_files(folder):
            return int(folder.name)
    raise NoService(f"no process of ours listens on port {port} of {socket.gethostname()}")


def _open_files(folder: Path) -> set[str]:
    found = set()
    try:
        for link in (folder / "fd").iterdir():
            found.add(os.readlink(link))
    except OSError:  # it has ended, or is somebody else's
        pass
    return {name for name in found if re.match(r"socket:", name)}


class RedisMeter:
    """Redis' own count of its CPU time and bytes, which is finer than the kernel's ticks."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._then: tuple[float, float, float] = (0.0, 0.0, 0.0)

    async def start(self) -> None:
        self._then = await self._read()

    async def read(self) -> tuple[float, float, float]:
        """Since `start`: CPU microseconds, bytes in, bytes out."""
        now = await self._read()
        cpu, read, written = (after - before for after, before in zip(now, self._then, strict=True))
        return cpu * 1e6, read, written

    async def _read(self) -> tuple[float, float, float]:
        info = await self._client.info("all")
        cpu = info["used_cpu_user"] + info["used_cpu_sys"]
        return cpu, float(info["total_net_input_bytes"]), float(info["total_net_output_bytes"])
