"""EventFeed: the events that one watcher gets, as many a second as it asked for, and of failures all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from kama.monitor_filter import parse_filter
from kama.monitor_protocol import Event, EventQuery
from kama.server.events import (
    Journal,
    build_event,
    is_never_sampled_entry,
    is_never_sampled_event,
    sample,
    subject_of_entry,
    subject_of_event,
)

_RECENT = 100
_CHUNK = 500
_SAVED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Events, oldest first; how many `sampled_out` to keep to the rate, how many `lost` in the ring."""

    items: list[Event]
    sampled_out: int = 0
    lost: int = 0


class EventFeed:
    """Begins with the last hundred events, or after the first `at` of them. Raises BadParameter for a wrong filter."""

    def __init__(
        self,
        journal: Journal,
        node: str,
        query: EventQuery,
        at: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._node = node
        self._query = query
        self._passes = parse_filter(query.filter)
        self._clock = clock
        self._taken_at = clock() - 1.0
        self.at = max(0, journal.count - _RECENT) if at is None else at

    async def take(self) -> Taken:
        """What came since the time before."""
        entries, lost = self._journal.since(self.at)
        self.at = self._journal.count
        now = self._clock()
        most = round(self._query.per_second * min(now - self._taken_at, _SAVED_SECONDS))
        self._taken_at = now
        if not self._query.filter:
            # Most are not shown: what is not, is not built either.
            chosen = sample(entries, most, is_never_sampled_entry, subject_of_entry)
            items = [build_event(entry, self._node) for entry in chosen]
            return Taken(items, len(entries) - len(items), lost)
        passed: list[Event] = []
        for start in range(0, len(entries), _CHUNK):
            built = (build_event(entry, self._node) for entry in entries[start : start + _CHUNK])
            passed += [event for event in built if self._passes(event)]
            await asyncio.sleep(0)
        items = sample(passed, most, is_never_sampled_event, subject_of_event)
        return Taken(items, len(passed) - len(items), lost)
