"""QueuesScreen: where things wait: each queue of each node, and each partition that a node stores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from textual.widget import Widget

from kama.monitor.store import Changes
from kama.monitor_protocol import Node
from kama.tui.cells import number, span
from kama.tui.columns import Cell, Column
from kama.tui.look import Tone, bar
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.live_table import LiveTable
from kama.tui.widgets.spark import curve

_BAR, _PAST = 8, 60
# What goes into a queue and what comes out, as the counters call it.
_FLOWS = {
    "transmit": ("accepted", "stored"),
    "send_back": ("offered", "written"),
    "log": ("stored", "folded"),
    "peers": ("forwarded", "forwarded"),
}


@dataclass(slots=True)
class QueueRow:
    """A queue, or a partition (`capacity` 0). `past`: its depths so far, oldest first; rates per second."""

    id: str
    node: str
    queue: str
    is_gone: bool
    depth: int
    high: int
    capacity: int
    in_rate: float | None
    out_rate: float | None
    past: list[float]

    @property
    def tone(self) -> Tone:
        if self.is_gone:
            return "dim"
        if not self.capacity or self.depth < 0.8 * self.capacity:
            return ""
        return "bad" if self.depth >= self.capacity else "warn"


def _drains(row: QueueRow, now_ms: int) -> Cell:
    """In what time it is empty if nothing more came in."""
    if not row.depth:
        return "empty", "dim"
    return span(row.depth / row.out_rate * 1000) if row.out_rate else "–"


def _rate(value: float | None) -> str:
    return "–" if value is None else number(value)


COLUMNS: tuple[Column[QueueRow], ...] = (
    Column("node", "NODE", 15, lambda row, now_ms: (row.node + (" gone" if row.is_gone else ""), row.tone), grow=1,
           align="tail"),
    Column("queue", "QUEUE", 12, lambda row, now_ms: (row.queue, row.tone), grow=1),
    Column("depth", "DEPTH", 7, lambda row, now_ms: (number(row.depth), row.tone), align="right",
           sort_by=lambda row: row.depth),
    Column("full", "FULL", _BAR, lambda row, now_ms: (bar(row.depth, row.capacity, _BAR), row.tone), priority=4),
    Column("capacity", "ROOM", 7, lambda row, now_ms: number(row.capacity) if row.capacity else "–", priority=1,
           align="right"),
    Column("high", "HIGH", 6, lambda row, now_ms: number(row.high), priority=5, align="right",
           sort_by=lambda row: row.high),
    Column("in", "IN/s", 7, lambda row, now_ms: _rate(row.in_rate), priority=2, align="right"),
    Column("out", "OUT/s", 7, lambda row, now_ms: _rate(row.out_rate), priority=2, align="right"),
    Column("drains", "EMPTY IN", 8, _drains, priority=3, align="right"),
    Column("past", "LAST MINUTE", 24, lambda row, now_ms: curve(row.past, 24), priority=6),
)  # fmt: skip


class QueuesScreen(MonitorScreen):
    """The past is put together while this runs, for all queues alike."""

    def __init__(self) -> None:
        super().__init__()
        self._past: dict[str, list[float]] = {}
        self._second = 0

    def body(self) -> Iterable[Widget]:
        yield LiveTable(COLUMNS, lambda row: row.id, hints=("no node has told of its queues yet",), id="queues")

    def draw(self, changes: Changes, now_ms: int) -> None:
        rows = [row for node in self.feed.store.nodes.values() for row in self._rows(node)]
        if now_ms // 1000 != self._second:
            self._second = now_ms // 1000
            self._past = {row.id: [*row.past, float(row.depth)][-_PAST:] for row in rows}
        if self.faults_only:
            rows = [row for row in rows if row.tone in ("warn", "bad")]
        self.query_one(LiveTable).update(rows, now_ms)

    def _rows(self, node: Node) -> Iterable[QueueRow]:
        rates: Mapping[str, float] = self.feed.store.mean_rates(node.name)
        is_gone = node.state == "gone"
        points = self.feed.store.points(node.name)[-_PAST:]
        for name, queue in node.queues.items():
            id = f"{node.name}/{name}"
            into, out = _FLOWS.get(name, (None, None))
            past = [float(getattr(point, name)) for point in points] if points and hasattr(points[0], name) else None
            yield QueueRow(
                id,
                node.name,
                name,
                is_gone,
                queue.depth,
                queue.high,
                queue.capacity,
                None if into is None or is_gone else rates[into],
                None if out is None or is_gone else rates[out],
                past if past is not None else self._past.get(id, []),
            )
        for partition in node.partitions:
            id = f"{node.name}/partition {partition.partition}"
            name = f"partition {partition.partition}"
            lag = partition.lag
            yield QueueRow(id, node.name, name, is_gone, lag, lag, 0, None, None, self._past.get(id, []))
