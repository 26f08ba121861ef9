"""One second after the other: rates from counters, depths as they are, percentiles of what was written lately."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from support import eventually

from kama.server.traffic import HighMark, Traffic
from kama.server.vitals import Reading, Vitals, percentiles, read_rss

_START = Reading(accepted=100, stored=90, written=200, dropped=0, connections=3, transmit=1, send_back=2, status=3)


class Watched:
    def __init__(self) -> None:
        self.reading = _START
        self.traffic = Traffic()
        self.ticks = 0
        self.vitals = Vitals(lambda: self.reading, self.traffic, self._tick)

    def _tick(self) -> None:
        self.ticks += 1


def test_a_point_has_rates_of_its_second_and_depths_at_its_end() -> None:
    watched = Watched()
    watched.reading = replace(_START, accepted=150, stored=110, written=300, dropped=4, transmit=7)
    watched.vitals.tick(2.0)
    (point,) = watched.vitals.points
    assert (point.accepted, point.stored, point.written, point.dropped) == (25, 10, 50, 2)
    assert (point.connections, point.transmit, point.send_back, point.status) == (3, 7, 2, 3)


def test_the_last_fifteen_minutes_are_kept() -> None:
    watched = Watched()
    for _ in range(905):
        watched.vitals.tick(1.0)
    assert len(watched.vitals.points) == 900


def test_how_long_delivery_takes_is_told_of_the_last_seconds() -> None:
    watched = Watched()
    now = time.time_ns()
    said = [(now - 60_000_000_000, 9_000.0), *((now, float(took)) for took in range(1, 101))]
    watched.traffic.written_live.extend((at, "written", 1, "U2", "c2", took) for at, took in said)
    watched.vitals.tick(1.0)
    assert (watched.vitals.sent_p50_ms, watched.vitals.sent_p99_ms) == (50, 99)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [([], (None, None)), ([3.0], (3, 3)), ([2.0, 1.0], (1, 2)), (list(map(float, range(1, 1001))), (500, 990))],
)
def test_percentiles_go_by_nearest_rank(taken: list[float], expected: tuple[float | None, float | None]) -> None:
    assert percentiles(taken) == expected


def test_memory_is_what_the_system_says() -> None:
    assert read_rss() > 10_000_000


async def test_the_clock_ticks_by_itself_and_says_how_late_it_was() -> None:
    watched = Watched()
    await watched.vitals.start()
    await asyncio.sleep(0)
    time.sleep(1.2)  # noqa: ASYNC251  # the loop hangs, and that is the point
    await eventually(lambda: watched.ticks)
    assert watched.vitals.loop_lag_ms > 150
    assert len(watched.vitals.points) == 1
    await watched.vitals.close()


def test_busy_seconds_show_as_percent() -> None:
    watched = Watched()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    watched.vitals.tick(0.2)
    assert watched.vitals.cpu_percent >= 40


def test_a_mark_begins_again_at_what_waits_when_it_is_taken() -> None:
    mark = HighMark()
    mark.see(5)
    mark.see(2)
    assert [mark.take(2), mark.take(0)] == [5, 2]
