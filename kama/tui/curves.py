"""Curves: the last minutes of all nodes together, a value a second, for the sparks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kama.monitor_protocol import Point

SECONDS = 180


@dataclass(slots=True)
class Curves:
    """Oldest first. `latest` of the p99 is the worst node's, in ms; None where nothing was sent."""

    accepted: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    latest_p99_ms: float | None = None


def curves_of(points_by_node: Iterable[list[Point]]) -> Curves:
    """Sums over the nodes second by second; of the p99, the worst."""
    seconds: dict[int, list[Point]] = {}
    for points in points_by_node:
        for point in points[-SECONDS:]:
            seconds.setdefault(point.at_ms // 1000, []).append(point)
    curves = Curves()
    for second in sorted(seconds)[-SECONDS:]:
        together = seconds[second]
        curves.accepted.append(sum(point.accepted for point in together))
        curves.written.append(sum(point.written for point in together))
        curves.queued.append(float(sum(point.transmit + point.send_back for point in together)))
        worst = max((point.sent_p99_ms for point in together if point.sent_p99_ms is not None), default=None)
        curves.latest_p99_ms = worst
        curves.p99_ms.append(worst or 0.0)
    return curves
