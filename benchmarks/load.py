"""A closed loop: so many messages under way, and a new one for each that has arrived. What it measures, and how."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from benchmarks.peer import Alarm, Failed, Peer, connect_all
from benchmarks.servers import KEEPER, Server, machine_cpu_seconds

Figures = dict[str, float]
LOGINS_AT_ONCE = 50
_LAST_ONES = 20.0


@dataclass(frozen=True)
class Timing:
    """Seconds."""

    warm_up: float
    measured: float


class Meter:
    """Wall time and CPU from its making to `read`: the server's, the client's, and everybody else's."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._wall = perf_counter()
        self._cpu = self._cpu_seconds()

    def _cpu_seconds(self) -> tuple[float, float, float]:
        return self._server.cpu_seconds(), time.process_time(), machine_cpu_seconds()

    def read(self, count: int) -> Figures:
        """`count`: what the server did meanwhile."""
        wall = perf_counter() - self._wall
        server, client, machine = (now - then for now, then in zip(self._cpu_seconds(), self._cpu, strict=True))
        return {
            "rate": count / wall,
            "server_us": server / count * 1e6 if count else 0.0,
            "server_cpu": server / wall * 100,
            "client_cpu": client / wall * 100,
            "others_cpu": max(0.0, machine - server - client) / wall * 100,
        }


class Load:
    """Whoever receives appends to `latencies`, and sends on while `running`."""

    clock = staticmethod(perf_counter)

    def __init__(self, alarm: Alarm) -> None:
        self.running = True
        self.latencies: list[float] = []
        self._alarm = alarm

    def start(self) -> None:
        raise NotImplementedError

    @property
    def under_way(self) -> int:
        raise NotImplementedError

    async def measure(self, server: Server, timing: Timing) -> Figures:
        self.start()
        await self._alarm.sleep(timing.warm_up)
        latencies: list[float] = []
        self.latencies = latencies
        rss, meter = server.resident_kib(), Meter(server)
        await self._alarm.sleep(timing.measured)
        figures = meter.read(len(latencies))
        self.latencies = []
        figures["grown_mib"] = (server.resident_kib() - rss) / 1024
        self.running = False
        await self._alarm.until(lambda: not self.under_way, _LAST_ONES, "the last messages")
        if not latencies:
            raise Failed(f"nothing came from {server.name} while it was measured")
        latencies.sort()
        figures["p50_ms"] = percentile(latencies, 0.50) * 1e3
        figures["p99_ms"] = percentile(latencies, 0.99) * 1e3
        return figures


def percentile(in_order: Sequence[float], part: float) -> float:
    return in_order[min(len(in_order) - 1, int(len(in_order) * part))]


async def log_in(alarm: Alarm, server: Server, user_ids: Sequence[str]) -> list[Peer]:
    peers = make_peers(alarm, server, user_ids)
    await connect_all(peers, server.url, LOGINS_AT_ONCE)
    return peers


def make_peers(alarm: Alarm, server: Server, user_ids: Sequence[str]) -> list[Peer]:
    return [Peer(alarm, user_id, KEEPER.issue(user_id, 3600), server.is_kama) for user_id in user_ids]
