"""Sums over all connections of a node, kept as frames pass: nobody walks the connections to know them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

StatusName = Literal["sent", "delivered", "read"]

_TOOK = 4_000


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

    `took` has the newest messages that were written out: when (Unix nanoseconds), and how many milliseconds after
    they were accepted.
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
    took: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_TOOK))

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
