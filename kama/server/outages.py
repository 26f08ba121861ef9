"""OutageFilter: what a library says of a server that is away, once a minute instead of a hundred times a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger("kama.log")

_EVERY = 60.0
_QUIET = 10.0

# How aiokafka's lines begin when it finds no way to a broker. Each of its tasks says so with every try.
KAFKA_IS_AWAY = (
    "Unable connect to",
    "Unable to request metadata",
    "Unable to update metadata",
    "Failed fetch",
    "Group Coordinator Request failed",
    "Error sending",
    "Heartbeat",
    "Marking the coordinator dead",
    "Cannot send",
    "Could not send",
    "Got error produce response",
)


class OutageFilter(logging.Filter):
    """For a handler: the first line that begins like one of `beginnings`, one `every` seconds, and a line at the end.

    `quiet` seconds without such a line are the end. Everything else passes.
    """

    def __init__(
        self,
        library: str,
        beginnings: Sequence[str],
        *,
        every: float = _EVERY,
        quiet: float = _QUIET,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(library)
        self._beginnings = tuple(beginnings)
        self._every = every
        self._quiet = quiet
        self._clock = clock
        self._is_on = False
        self._told_at = 0.0
        self._last_at = 0.0
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not (super().filter(record) and str(record.msg).startswith(self._beginnings)):
            return True
        self._last_at = self._clock()
        if not self._is_on:
            self._begin()
        elif self._last_at - self._told_at < self._every:
            self._left_out += 1
            return False
        self._told_at = self._last_at
        return True

    def _begin(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # nobody to tell the end: then every line is told
        self._is_on = True
        self._left_out = 0
        loop.call_later(self._quiet, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        left = self._last_at + self._quiet - self._clock()
        if left > 0:
            loop.call_later(left, self._look, loop)
            return
        self._is_on = False
        log.warning(f"{self.name}: no more failures", lines_left_out=self._left_out)
