"""Vitals: once a second, what the node did in it and how it feels. It costs the same however busy the node is."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kama.monitor_protocol import Point
from kama.server.tasks import cancel, spawn
from kama.server.traffic import Traffic

_POINTS = 900
_SAMPLE_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters that only rise, and depths, at one moment."""

    accepted: int
    stored: int
    written: int
    dropped: int
    connections: int
    transmit: int
    send_back: int
    status: int


class Vitals:
    """`read` gives the node's numbers now; `on_tick` is called after each point, for what else is due once a second."""

    def __init__(self, read: Callable[[], Reading], traffic: Traffic, on_tick: Callable[[], None]) -> None:
        self._read = read
        self._traffic = traffic
        self._on_tick = on_tick
        self._before = read()
        self._cpu = _CpuTime()
        self._task: asyncio.Task[None] | None = None
        self.points: deque[Point] = deque(maxlen=_POINTS)
        self.beat_ms = time.time_ns() // 1_000_000
        self.loop_lag_ms = 0.0
        self.cpu_percent = 0.0
        self.rss_bytes = 0
        self.sent_p50_ms: float | None = None
        self.sent_p99_ms: float | None = None

    async def start(self) -> None:
        self.rss_bytes = read_rss()
        self._task = spawn(self._run(), name="vitals")

    async def close(self) -> None:
        await cancel(self._task)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        ticked = loop.time()
        while True:
            due = loop.time() + 1.0
            await asyncio.sleep(1.0)
            now = loop.time()
            self.loop_lag_ms = max(0.0, now - due) * 1000
            self.tick(now - ticked)
            ticked = now
            self._on_tick()

    def tick(self, seconds: float) -> None:
        """Take the point of the last `seconds`."""
        now, before = self._read(), self._before
        self._before = now
        now_ns = time.time_ns()
        self.beat_ms = now_ns // 1_000_000
        self.cpu_percent = self._cpu.percent(seconds)
        self.rss_bytes = read_rss()
        taken = [took for at, *_, took in self._traffic.written_live if at > now_ns - _SAMPLE_NS]
        self.sent_p50_ms, self.sent_p99_ms = percentiles(taken)
        self.points.append(
            Point(
                at_ms=self.beat_ms,
                accepted=round((now.accepted - before.accepted) / seconds, 1),
                stored=round((now.stored - before.stored) / seconds, 1),
                written=round((now.written - before.written) / seconds, 1),
                dropped=round((now.dropped - before.dropped) / seconds, 1),
                connections=now.connections,
                transmit=now.transmit,
                send_back=now.send_back,
                status=now.status,
                sent_p99_ms=self.sent_p99_ms,
                loop_lag_ms=round(self.loop_lag_ms, 2),
            )
        )


def percentiles(taken: Iterable[float]) -> tuple[float | None, float | None]:
    """The 50th and the 99th, by nearest rank; none of nothing."""
    ordered = sorted(taken)
    if not ordered:
        return None, None
    return ordered[-(-len(ordered) * 50 // 100) - 1], ordered[-(-len(ordered) * 99 // 100) - 1]


class _CpuTime:
    """How busy this process was since the time before; over 100 with more than one busy thread."""

    def __init__(self) -> None:
        self._before = self._used()

    def percent(self, seconds: float) -> float:
        used = self._used()
        spent, self._before = used - self._before, used
        return round(100 * spent / seconds, 1) if seconds > 0 else 0.0

    @staticmethod
    def _used() -> float:
        times = os.times()
        return times.user + times.system


def read_rss() -> int:
    """Bytes of memory that this process has resident; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return _peak_rss()


def _peak_rss() -> int:
    """Without /proc, as on macOS: the most it ever had, which is what the standard library knows."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
