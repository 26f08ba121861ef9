"""Sums over all connections of a node, kept as frames pass: nobody walks the connections to know them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

StatusName = Literal["sent", "delivered", "read"]

_WRITTEN = 4_000

Written = tuple[int, str, int, str, str, float]
"""A message that was written out, as the journal has it: Unix nanoseconds, "written", its id, the user, the connection,
and how many milliseconds after it was accepted."""


@dataclass(slots=True)
class HighMark:
    """The most that waited in a queue since somebody last took the mark."""

    high: int = 0

    def see(self, depth: int) -> None:
        if depth > self.high:
            self.high = depth

    def take(self, depth: int) -> int:
        """The mark, which begins again at what waits now."""
        taken, self.high = max(self.high, depth), depth
        return taken


@dataclass(slots=True)
class Traffic:
    """Counters since the node started; `queued` frames wait in all send-back queues together, now.

    `written_live` has the newest messages that were not read back from the store first: how long they took says how the
    node does.
    """

    received: int = 0
    written: int = 0
    written_bytes: int = 0
    dropped: int = 0
    queued: int = 0
    queued_mark: HighMark = field(default_factory=HighMark)
    sent: int = 0
    delivered: int = 0
    read: int = 0
    logins: int = 0
    logins_refused: int = 0
    written_live: deque[Written] = field(default_factory=lambda: deque(maxlen=_WRITTEN))

    def risen(self, status: StatusName, count: int) -> None:
        match status:
            case "sent":
                self.sent += count
            case "delivered":
                self.delivered += count
            case "read":
                self.read += count

    def enqueued(self) -> None:
        self.queued += 1
        if self.queued > self.queued_mark.high:
            self.queued_mark.high = self.queued
