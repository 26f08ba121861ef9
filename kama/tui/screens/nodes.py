"""NodesScreen: the nodes of the cluster, as each is or last was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from textual.widget import Widget

from kama.monitor.store import Changes
from kama.monitor_protocol import Node
from kama.tui.cells import clock, milliseconds, number, size, span, uptime
from kama.tui.columns import Cell, Column
from kama.tui.look import Tone
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.line import Line, Words, facts_in
from kama.tui.widgets.live_table import LiveTable

_LAG_MS = 100.0


@dataclass(slots=True)
class NodeRow:
    """A node, how fast it goes, and whether its version is not the one that most have."""

    node: Node
    in_rate: float
    out_rate: float
    is_odd: bool

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def is_gone(self) -> bool:
        return self.node.state == "gone"


def _state(row: NodeRow, now_ms: int) -> Cell:
    node = row.node
    if node.state == "gone":
        return f"✖ gone {span(now_ms - node.beat_ms)}", "bad"
    if node.state == "draining":
        return "◌ draining", "warn"
    if node.troubles:
        return f"▲ up, {', '.join(node.troubles)} in trouble", "warn"
    return "● up", "good"


def _lag(row: NodeRow, now_ms: int) -> Cell:
    return milliseconds(row.node.loop_lag_ms), "warn" if row.node.loop_lag_ms > _LAG_MS else ""


def _kafka_lag(row: NodeRow, now_ms: int) -> Cell:
    return number(sum(each.lag for each in row.node.partitions)) if row.node.partitions else "–"


def _version(row: NodeRow, now_ms: int) -> Cell:
    return (f"{row.node.version} ≠", "warn") if row.is_odd else row.node.version


def _uptime(row: NodeRow, now_ms: int) -> Cell:
    return "–" if row.is_gone else uptime(now_ms - row.node.started_ms)


COLUMNS: tuple[Column[NodeRow], ...] = (
    Column("node", "NODE", 15, lambda row, now_ms: row.node.name, grow=1, align="tail",
           sort_by=lambda row: row.node.name, descending=False),
    Column("state", "STATE", 12, _state, grow=3, sort_by=lambda row: row.node.state, descending=False),
    Column("online", "ONLINE", 7, lambda row, now_ms: number(row.node.connections), align="right",
           sort_by=lambda row: row.node.connections),
    Column("in", "IN/s", 6, lambda row, now_ms: number(row.in_rate), align="right", sort_by=lambda row: row.in_rate),
    Column("out", "OUT/s", 6, lambda row, now_ms: number(row.out_rate), align="right", priority=1,
           sort_by=lambda row: row.out_rate),
    Column("p99", "p99", 6, lambda row, now_ms: milliseconds(row.node.sent_p99_ms), align="right", priority=3),
    Column("lag", "LOOP", 6, _lag, align="right", priority=4, sort_by=lambda row: row.node.loop_lag_ms),
    Column("cpu", "CPU", 5, lambda row, now_ms: f"{row.node.cpu_percent:.0f}%", align="right", priority=2,
           sort_by=lambda row: row.node.cpu_percent),
    Column("rss", "RSS", 7, lambda row, now_ms: size(row.node.rss_bytes), align="right", priority=5,
           sort_by=lambda row: row.node.rss_bytes),
    Column("kafka", "KAFKA LAG", 9, _kafka_lag, align="right", priority=7),
    Column("uptime", "UP", 9, _uptime, align="right", priority=6),
    Column("mode", "MODE", 8, lambda row, now_ms: row.node.mode, priority=8),
    Column("version", "VERSION", 9, _version, priority=9),
    Column("address", "ADDRESS", 16, lambda row, now_ms: (row.node.address, "dim"), priority=10),
)  # fmt: skip


class NodesScreen(MonitorScreen):
    """Below the table stands what does not work on the node under the cursor."""

    def body(self) -> Iterable[Widget]:
        yield LiveTable(COLUMNS, lambda row: row.name, sort="node", hints=("no node yet",), id="nodes")
        yield Line(id="node-detail")

    def draw(self, changes: Changes, now_ms: int) -> None:
        store = self.feed.store
        versions = Counter(node.version for node in store.nodes.values())
        usual = versions.most_common(1)[0][0] if versions else ""
        rows = [
            NodeRow(node, rates["accepted"], rates["written"], node.version != usual)
            for node in store.nodes.values()
            for rates in (store.rates(node.name),)
            if not self.faults_only or node.state != "up" or node.troubles
        ]
        table = self.query_one("#nodes", LiveTable)
        table.update(rows, now_ms)
        picked = table.cursor_row
        detail = _detail(picked.node, self.size.width) if picked is not None else ()
        self.query_one("#node-detail", Line).show(*detail)


def _detail(node: Node, width: int) -> list[Words]:
    """What the columns have no room for."""
    address = f"{node.address} " if node.address != node.name else ""
    head: list[tuple[str, Tone]] = [(node.name, "strong"), (f" {address}{node.version} epoch {node.epoch}", "dim")]
    if node.state == "gone":
        head.append((f" last seen {clock(node.beat_ms)}: these are its last values", "bad"))
    tone: Tone = "dim" if node.state == "gone" else "warn"
    troubles: list[Words] = [[(f"▲ {part}: {words}", tone)] for part, words in node.troubles.items()]
    return [head, *facts_in(_facts(node), width), *troubles]


def _facts(node: Node) -> list[str]:
    counters = node.counters
    return [
        f"stored {counters.stored:,}",
        f"refused {counters.refused:,}",
        f"dropped {counters.dropped:,}",
        f"not stored {counters.not_stored:,}",
        f"logins {counters.logins:,} ({counters.logins_refused:,} refused)",
        f"closed {counters.closed:,}",
        f"batch ≤ {node.largest_batch}, last {milliseconds(node.batch_ms)}",
        f"status {milliseconds(node.status_ms)}",
        f"sent p50 {milliseconds(node.sent_p50_ms)} p99 {milliseconds(node.sent_p99_ms)}",
        f"rebalances {node.rebalances}",
    ]
