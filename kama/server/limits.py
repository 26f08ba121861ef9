"""How much one user may send: a token bucket per user.

Own code of twenty lines: the rate-limit libraries count in windows, which lets through twice the burst at a
window's edge and cannot say when the next message may come.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_PRUNE_AT = 20_000


class TokenBuckets:
    """`rate` tokens a second up to `burst`, per key. A rate of 0 means no limit."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._prune_at = _PRUNE_AT

    def take(self, key: str) -> float:
        """Take one token. 0.0 when there was one, else the seconds until there is one."""
        if self._rate <= 0:
            return 0.0
        now = self._clock()
        tokens, at = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        if tokens < 1.0:
            self._buckets[key] = (tokens, now)
            return (1.0 - tokens) / self._rate
        if len(self._buckets) >= self._prune_at:
            self._prune(now)
        self._buckets[key] = (tokens - 1.0, now)
        return 0.0

    def give_back(self, key: str) -> None:
        """One token that was taken just now, and not used."""
        if self._rate > 0:
            tokens, at = self._buckets[key]
            self._buckets[key] = (tokens + 1.0, at)

    def _prune(self, now: float) -> None:
        """Forget whoever is full again; the others are owed their limit.

        The next time is when as many again have come, so that it costs each of them the same however many there are.
        """
        self._buckets = {
            key: (tokens, at)
            for key, (tokens, at) in self._buckets.items()
            if tokens + (now - at) * self._rate < self._burst
        }
        self._prune_at = max(_PRUNE_AT, 2 * len(self._buckets))
