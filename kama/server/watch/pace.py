"""Pace: how often a watcher gets a frame. One that does not keep up gets fewer, not later ones."""

from __future__ import annotations

from collections import deque

_SLOWEST_MS = 2_000
_PATIENCE_MS = 1_000
_KEPT = 256


class Pace:
    """`wanted_ms` between two frames while all goes well, `interval_ms` now. Moments are seconds of one clock."""

    def __init__(self, wanted_ms: int) -> None:
        self.wanted_ms = wanted_ms
        self.interval_ms = wanted_ms
        self._unacked: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._slowed_at = 0.0

    def want(self, wanted_ms: int) -> None:
        """The watcher asks for another interval, and is trusted anew."""
        self.wanted_ms = self.interval_ms = wanted_ms
        self._unacked.clear()

    def sent(self, seq: int, now: float) -> None:
        self._unacked.append((seq, now))

    def acked(self, seq: int, now: float) -> None:
        """The watcher has everything up to `seq`. In time, that brings it back towards what it wants."""
        newest: float | None = None
        while self._unacked and self._unacked[0][0] <= seq:
            newest = self._unacked.popleft()[1]
        if newest is not None and now - newest <= self._patience:
            self.interval_ms = max(self.wanted_ms, self.interval_ms // 2)

    def look(self, now: float) -> None:
        """Before a frame: half as often from here on, if the watcher has been owing an ack for too long."""
        if self._unacked and now - max(self._unacked[0][1], self._slowed_at) > self._patience:
            self.interval_ms = max(self.wanted_ms, min(2 * self.interval_ms, _SLOWEST_MS))
            self._slowed_at = now

    @property
    def _patience(self) -> float:
        return max(3 * self.interval_ms, _PATIENCE_MS) / 1000
