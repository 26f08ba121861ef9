"""Histogram: durations in buckets, in memory that does not grow with their number.

Log-linear: a power of two of microseconds has 128 buckets, so a percentile is too large by less than 0.8 %, and
exact below 256 us. The largest value is kept as it was.
"""

from __future__ import annotations

import math

_BITS = 7
_HALF = 1 << _BITS
_LARGEST = 1 << 36  # 19 hours, in microseconds: what takes longer counts as that
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99_9": 0.999}


def _bucket(us: int) -> int:
    shift = max(0, us.bit_length() - _BITS - 1)
    return (shift << _BITS) + (us >> shift)


def _highest(bucket: int) -> int:
    """The largest number of microseconds that falls into the bucket."""
    shift = max(0, (bucket >> _BITS) - 1)
    return ((bucket - (shift << _BITS) + 1) << shift) - 1


class Histogram:
    """Takes seconds, gives seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (_bucket(_LARGEST) + 1)
        self.count = 0
        self.max = 0.0

    def record(self, seconds: float) -> None:
        """A negative duration (a clock that was read too late) counts as none."""
        self._counts[_bucket(min(_LARGEST, max(0, int(seconds * 1e6))))] += 1
        self.count += 1
        if seconds > self.max:
            self.max = seconds

    def percentile(self, part: float) -> float | None:
        """The least duration that `part` (above 0, at most 1) of all do not exceed; None when there are none."""
        wanted = max(1, math.ceil(self.count * part))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= wanted:
                return min((_highest(bucket) + 1) / 1e6, self.max)
        return None

    def as_ms(self) -> dict[str, float | int | None]:
        """`count`, then milliseconds: `p50`, `p90`, `p99`, `p99_9`, `max`; each None when nothing was recorded."""
        found = {name: self.percentile(part) for name, part in PERCENTILES.items()}
        values = {**found, "max": self.max if self.count else None}
        return {"count": self.count} | {name: _ms(value) for name, value in values.items()}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
