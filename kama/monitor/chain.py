"""Chain: whether a source's frames come one after the other, each once, as `seq` and `base` say."""

from __future__ import annotations

from enum import Enum, auto

from kama.monitor_protocol import Delta, Events, Snap


class Place(Enum):
    NEXT = auto()
    AGAIN = auto()  # older than what is known: nothing in it is news
    AFTER_GAP = auto()  # something before it is missing: only a snap mends that


class Chain:
    """`take` each frame as it comes. After a gap only a snap is NEXT; events are AFTER_GAP, and news all the same."""

    __slots__ = ("at_ms", "is_broken", "seq", "state_seq")

    def __init__(self) -> None:
        self.seq = -1  # of the last frame
        self.state_seq = 0  # of the last snap or delta
        self.at_ms = 0  # of that one
        self.is_broken = True  # until the first snap

    def take(self, frame: Snap | Delta | Events) -> Place:
        if isinstance(frame, Snap):
            if frame.seq <= self.seq and frame.at_ms <= self.at_ms:
                return Place.AGAIN
            self.seq = self.state_seq = frame.seq
            self.at_ms = frame.at_ms
            self.is_broken = False
            return Place.NEXT
        if frame.seq <= self.seq:
            return Place.AGAIN
        if frame.seq > self.seq + 1:
            self.is_broken = True
        if isinstance(frame, Delta):
            if not self.state_seq <= frame.base <= self.seq:
                self.is_broken = True
            if not self.is_broken:
                self.state_seq = frame.seq
                self.at_ms = frame.at_ms
        self.seq = frame.seq
        return Place.AFTER_GAP if self.is_broken else Place.NEXT
