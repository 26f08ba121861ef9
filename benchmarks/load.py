"""A load and what it measures: a rate, latencies, and the CPU of the server, of its children and of the client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from benchmarks.client import DIALECTS, Alarm, Client, Failed, connect_all
from benchmarks.servers import KEEPER, Server, machine_cpu_seconds

Figures = dict[str, float]
LOGINS_AT_ONCE = 50
_LAST_ONES = 20.0
_QUIET = 0.5
_QUIET_MAX = 30.0
_LOOKING_AROUND = 0.015  # CPU seconds within _QUIET: less is no work


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    warm_up: float
    measured: float


class Meter:
    """Wall time and CPU from its making to `read`: the server's, its children's, the client's, and everybody else's."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._wall = perf_counter()
        self._cpu = self._cpu_seconds()

    def _cpu_seconds(self) -> tuple[float, float, float, float]:
        server = self._server
        return server.cpu_seconds(), server.children_cpu_seconds(), time.process_time(), machine_cpu_seconds()

    def read(self, count: int) -> Figures:
        """`count`: what the server did meanwhile. CPU in percent of a core, `server_us` without the children."""
        wall = perf_counter() - self._wall
        used = (now - then for now, then in zip(self._cpu_seconds(), self._cpu, strict=True))
        server, children, client, machine = used
        return {
            "rate": count / wall,
            "server_us": server / count * 1e6 if count else 0.0,
            "server_cpu": (server + children) / wall * 100,
            "client_cpu": client / wall * 100,
            "others_cpu": max(0.0, machine - server - children - client) / wall * 100,
        }


class Load:
    """Whoever receives appends to `latencies`."""

    def __init__(self, alarm: Alarm) -> None:
        self.running = True
        self.latencies: list[float] = []
        self._alarm = alarm

    def start(self) -> None:
        raise NotImplementedError

    @property
    def received(self) -> int:
        """From the first message on."""
        raise NotImplementedError

    @property
    def under_way(self) -> int:
        raise NotImplementedError

    async def measure(self, server: Server, timing: Timing) -> Figures:
        children, received = server.children_cpu_seconds(), self.received
        self.start()
        await self._alarm.sleep(timing.warm_up)
        latencies: list[float] = []
        self.latencies = latencies
        meter = Meter(server)
        await self._alarm.sleep(timing.measured)
        figures = meter.read(len(latencies))
        self.latencies = []
        await self.stop()
        if not latencies:
            raise Failed(f"nothing came from {server.name} while it was measured")
        latencies.sort()
        figures["p50_ms"] = percentile(latencies, 0.50) * 1e3
        figures["p99_ms"] = percentile(latencies, 0.99) * 1e3
        used, behind = await self._children(server, children)
        return figures | {"children_us": used / (self.received - received) * 1e6, "behind_s": behind}

    async def stop(self) -> None:
        """Until the last message has come."""
        self.running = False
        await self._alarm.until(lambda: not self.under_way, _LAST_ONES, "the last messages")

    async def _children(self, server: Server, before: float) -> tuple[float, float]:
        """CPU seconds of the server's children since `before`, and the seconds for which they went on after the load:
        what they put off is not free."""
        used, waited, last_seen = server.children_cpu_seconds(), 0.0, 0.0
        while used > before and waited - last_seen < _QUIET and waited < _QUIET_MAX:
            await self._alarm.sleep(0.1)
            waited += 0.1
            now = server.children_cpu_seconds()
            if now - used > _LOOKING_AROUND:
                used, last_seen = now, waited
        return used - before, last_seen


def percentile(in_order: Sequence[float], part: float) -> float:
    return in_order[min(len(in_order) - 1, int(len(in_order) * part))]


async def log_in(alarm: Alarm, server: Server, user_ids: Sequence[str]) -> list[Client]:
    clients = make_clients(alarm, server, user_ids)
    await connect_all(clients, server.url, LOGINS_AT_ONCE)
    return clients


def make_clients(alarm: Alarm, server: Server, user_ids: Sequence[str]) -> list[Client]:
    dialect = DIALECTS[server.protocol]
    return [Client(alarm, user_id, KEEPER.issue(user_id, 3600), dialect) for user_id in user_ids]
