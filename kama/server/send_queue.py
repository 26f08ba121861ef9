"""SendQueue: the send-back queue, where what is for one connection waits for its turn to be written."""

from __future__ import annotations

from dataclasses import dataclass

from kama.server.message_back import MessageBack
from kama.server.traffic import Traffic

Item = MessageBack | bytes
"""A stored message, or another frame in JSON."""


@dataclass(frozen=True, slots=True)
class ConnLimits:
    """`messages` and `bytes` bound the send-back queue, `resume` what catch-up pushes of one conversation."""

    messages: int = 100
    bytes: int = 1 << 20
    resume: int = 300


def size_of(item: Item) -> int:
    return len(item) if isinstance(item, bytes) else len(item.frame)


class SendQueue:
    """`bytes` wait in it; `high_water` is the most frames that ever did. An empty one has room for any frame."""

    __slots__ = ("_limits", "_traffic", "bytes", "high_water", "items")

    def __init__(self, limits: ConnLimits, traffic: Traffic) -> None:
        self._limits = limits
        self._traffic = traffic
        self.items: list[Item] = []
        self.bytes = 0
        self.high_water = 0

    def has_room(self, size: int) -> bool:
        """Beside what is there."""
        items, limits = self.items, self._limits
        return not items or (len(items) < limits.messages and self.bytes + size <= limits.bytes)

    @property
    def is_half_full(self) -> bool:
        return len(self.items) * 2 >= self._limits.messages or self.bytes * 2 >= self._limits.bytes

    def add(self, item: Item, size: int) -> None:
        items = self.items
        items.append(item)
        self.bytes += size
        self._traffic.enqueued()
        if len(items) > self.high_water:
            self.high_water = len(items)

    def take(self) -> list[Item]:
        """All of it, in order."""
        items, self.items = self.items, []
        self.bytes = 0
        self._traffic.queued -= len(items)
        return items
