"""Backoff: how long to wait before the next try of something that failed."""

from __future__ import annotations


class Backoff:
    """`first` seconds, then twice as long each time, and never longer than `most`."""

    __slots__ = ("_first", "_most", "delay")

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self.delay = first  # before the next try

    def take(self) -> float:
        """The seconds to wait now; the next time it is longer."""
        delay, self.delay = self.delay, min(self.delay * 2, self._most)
        return delay

    def begin_anew(self) -> None:
        """Something succeeded."""
        self.delay = self._first
