"""OutageFilter: a server that is away is told when it goes, now and then, and when it is back."""

from __future__ import annotations

import logging

from server_builders import until
from structlog.testing import capture_logs

from kama.server.outages import KAFKA_IS_AWAY, OutageFilter

AWAY = "Unable connect to node with id %s: %s"


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.now


def passes(outages: OutageFilter, message: str = AWAY, *, logger: str = "aiokafka.client") -> bool:
    record = logging.LogRecord(logger, logging.ERROR, __file__, 1, message, (1, "refused"), None)
    return bool(outages.filter(record))


async def test_an_outage_is_told_once_and_then_once_a_minute() -> None:
    clock = Clock()
    outages = OutageFilter("aiokafka", KAFKA_IS_AWAY, clock=clock)
    assert [passes(outages) for _ in range(3)] == [True, False, False]
    clock.now += 59
    assert not passes(outages, "Failed fetch messages from %s: %s", logger="aiokafka.consumer.fetcher")
    clock.now += 2
    assert [passes(outages) for _ in range(2)] == [True, False]


async def test_its_end_is_told_with_what_was_left_out() -> None:
    outages = OutageFilter("aiokafka", KAFKA_IS_AWAY, quiet=0.01)
    with capture_logs() as logs:
        for _ in range(3):
            passes(outages)
        await until(lambda: len(logs) == 1)
    assert (logs[0]["event"], logs[0]["lines_left_out"]) == ("aiokafka: no more failures", 2)


async def test_the_next_outage_is_told_again() -> None:
    outages = OutageFilter("aiokafka", KAFKA_IS_AWAY, quiet=0.01)
    with capture_logs() as logs:
        assert passes(outages)
        await until(lambda: len(logs) == 1)
        assert passes(outages)
        await until(lambda: len(logs) == 2)


async def test_it_is_not_over_while_failures_come() -> None:
    clock = Clock()
    outages = OutageFilter("aiokafka", KAFKA_IS_AWAY, quiet=0.01, clock=clock)
    with capture_logs() as logs:
        passes(outages)
        # Looked at more than once, and no time has gone by since the last failure.
        await until(lambda: clock.asked > 5)
        assert logs == []
        clock.now += 1
        await until(lambda: len(logs) == 1)


async def test_everything_else_passes() -> None:
    outages = OutageFilter("aiokafka", KAFKA_IS_AWAY)
    for _ in range(2):
        assert passes(outages, "Not authorized to read from topic %s: %s")
        assert passes(outages, logger="kama.kafka")


def test_without_anybody_to_tell_the_end_every_line_is_told() -> None:
    outages = OutageFilter("aiokafka", KAFKA_IS_AWAY)
    assert passes(outages) and passes(outages)
