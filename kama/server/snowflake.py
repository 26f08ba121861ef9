"""Message ids: 41 bits of milliseconds since 2010-11-04, 10 bits of node, 12 bits of step.

The layout and epoch of Twitter's snowflake as KamaChat uses it. A clock that steps back, or more than 4096 ids
within a millisecond, moves on in the generator's own time instead of waiting: ids stay unique and ascending.
"""

from __future__ import annotations

import time
from collections.abc import Callable

EPOCH_MS = 1_288_834_974_657
NODE_MAX = 1023
_STEP_MAX = 4095


def timestamp_ms(uuid: int) -> int:
    """The Unix milliseconds in which an id was made."""
    return (uuid >> 22) + EPOCH_MS


class Snowflake:
    """Raises ValueError for a node outside 0 to 1023."""

    def __init__(self, node: int, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.number(node)
        self._clock_ns = clock_ns
        self._ms = 0
        self._step = 0

    def number(self, node: int) -> None:
        """Make ids of this node from now on. Raises ValueError."""
        if not 0 <= node <= NODE_MAX:
            raise ValueError(f"expected a node number from 0 to {NODE_MAX}, got {node}")
        self._node = node << 12

    def resume_after(self, uuid: int) -> None:
        """Never give out this id or an earlier one: not after a restart with the clock set back either."""
        ms = uuid >> 22
        if ms >= self._ms:
            # The id may be another node's, with a greater number than ours: its whole millisecond is used up.
            self._ms = ms
            self._step = _STEP_MAX

    def next(self) -> int:
        """A new id: greater than every id before it. Never waits."""
        now = self._clock_ns() // 1_000_000 - EPOCH_MS
        if now > self._ms:
            self._ms = now
            self._step = 0
        elif self._step < _STEP_MAX:
            self._step += 1
        else:
            self._ms += 1
            self._step = 0
        return self._ms << 22 | self._node | self._step
