"""Series: the last minutes of one node, a point a second, and how fast it counts right now."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from kama.monitor_protocol import Counters, Node, Point

POINTS_MAX = 900
COUNTERS: tuple[str, ...] = Counters.__struct_fields__
NO_RATES: Mapping[str, float] = dict.fromkeys(COUNTERS, 0.0)
# Two frames closer than this tell more of the clocks than of the node.
_APART_MS = 150
# What a node does in batches, two a second, stands still between two frames, and leaps between the next two.
_MEAN_OVER_MS = 2_000
# After this much silence the mean over it says nothing about now.
_TOGETHER_MS = 15_000


class Series:
    """`rates` are per second, by the counter's name: what the last two states of the node tell."""

    __slots__ = ("_lately", "_second", "points", "rates")

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=POINTS_MAX)
        self.rates: Mapping[str, float] = NO_RATES
        self._lately: deque[tuple[int, Node]] = deque()
        self._second: tuple[int, Node] | None = None  # where the last point ended

    def take_history(self, points: Iterable[Point]) -> None:
        """The node's own record of its past: it goes before what was put together here, second by second."""
        merged = {point.at_ms // 1000: point for point in self.points}
        merged |= {point.at_ms // 1000: point for point in points}
        self.points = deque((merged[second] for second in sorted(merged)), maxlen=POINTS_MAX)

    @property
    def mean_rates(self) -> Mapping[str, float]:
        """The same over the last seconds."""
        return _rates(self._lately[0], self._lately[-1]) if len(self._lately) > 1 else NO_RATES

    def take(self, node: Node, at_ms: int) -> bool:
        """The node as it was at `at_ms`, by its own clock. Whether there is a new point."""
        lately = self._lately
        if not lately or _is_other_life(lately[-1], node, at_ms):
            self._second = (at_ms, node)
            self._lately = deque([self._second])
            self.rates = NO_RATES
            return False
        if at_ms - lately[-1][0] < _APART_MS:
            return False
        self.rates = _rates(lately[-1], (at_ms, node))
        lately.append((at_ms, node))
        while lately[1][0] <= at_ms - _MEAN_OVER_MS:
            lately.popleft()
        return self._take_second(node, at_ms)

    def _take_second(self, node: Node, at_ms: int) -> bool:
        if self._second is None or at_ms // 1000 == self._second[0] // 1000:
            return False
        rates = _rates(self._second, (at_ms, node))
        self._second = (at_ms, node)
        if self.points and at_ms // 1000 <= self.points[-1].at_ms // 1000:
            return False
        self.points.append(_point(node, at_ms, rates))
        return True


def _is_other_life(last: tuple[int, Node], node: Node, at_ms: int) -> bool:
    return last[1].epoch != node.epoch or abs(at_ms - last[0]) > _TOGETHER_MS


def _rates(one: tuple[int, Node], two: tuple[int, Node]) -> Mapping[str, float]:
    seconds = (two[0] - one[0]) / 1000
    before, after = msgspec.structs.astuple(one[1].counters), msgspec.structs.astuple(two[1].counters)
    return {name: max(0.0, (new - old) / seconds) for name, old, new in zip(COUNTERS, before, after, strict=True)}


def _point(node: Node, at_ms: int, rates: Mapping[str, float]) -> Point:
    def depth(queue: str) -> int:
        return node.queues[queue].depth if queue in node.queues else 0

    return Point(
        at_ms=at_ms,
        accepted=rates["accepted"],
        stored=rates["stored"],
        written=rates["written"],
        dropped=rates["dropped"],
        connections=node.connections,
        transmit=depth("transmit"),
        send_back=depth("send_back"),
        status=depth("status"),
        sent_p99_ms=node.sent_p99_ms,
        loop_lag_ms=node.loop_lag_ms,
    )
