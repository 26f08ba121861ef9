"""LogScreen: faults, actions and links, counted where they repeat."""

from __future__ import annotations

from collections.abc import Iterable

from textual.widget import Widget

from kama.monitor.store import Changes
from kama.tui.cells import clock
from kama.tui.columns import Column
from kama.tui.logbook import Entry
from kama.tui.look import Tone
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.line import Line
from kama.tui.widgets.live_table import LiveTable

COLUMNS: tuple[Column[Entry], ...] = (
    Column("time", "TIME", 8, lambda entry, now_ms: (clock(entry.at_ms), "dim")),
    Column("kind", "KIND", 13, lambda entry, now_ms: (entry.kind, entry.tone)),
    Column("count", "COUNT", 6, lambda entry, now_ms: f"×{entry.count:,}" if entry.count > 1 else "", align="right"),
    Column("text", "WHAT", 34, lambda entry, now_ms: (entry.text, entry.tone), grow=1),
    Column("node", "WHERE", 14, lambda entry, now_ms: (entry.node, "dim"), priority=1, align="tail"),
    Column("first", "FIRST", 8, lambda entry, now_ms: (clock(entry.first_ms), "dim"), priority=2),
)


class LogScreen(MonitorScreen):
    """Newest first."""

    def body(self) -> Iterable[Widget]:
        yield Line(id="log-title")
        yield LiveTable(COLUMNS, lambda entry: entry.number, hints=("nothing to report",), newest_first=True, id="log")

    def draw(self, changes: Changes, now_ms: int) -> None:
        entries = [
            entry
            for entry in reversed(self.feed.logbook.entries)
            if not self.faults_only or entry.tone in ("warn", "bad")
        ]
        self.query_one(LiveTable).update(entries, now_ms)
        words = "faults, actions and links; what repeats is counted"
        if self.faults_only:
            words = "faults only"
        tone: Tone = "dim"
        if self.feed.filter:
            words, tone = f"of nodes only what passes the filter {self.feed.filter}", "warn"
        self.query_one("#log-title", Line).show([(words, tone)])
