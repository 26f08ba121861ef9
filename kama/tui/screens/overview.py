"""OverviewScreen: five seconds in an incident: how much, how full, who, and what happens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.containers import Container, Grid
from textual.widget import Widget

from kama.monitor.store import Changes
from kama.monitor_protocol import Client
from kama.tui import client_columns
from kama.tui.cells import milliseconds, number
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.client_table import ClientTable
from kama.tui.widgets.event_list import EventList
from kama.tui.widgets.line import Title
from kama.tui.widgets.live_table import LiveTable
from kama.tui.widgets.spark import Spark


class OverviewScreen(MonitorScreen):
    """Four curves, the connections with most to do, the newest events."""

    def body(self) -> Iterable[Widget]:
        with Grid(id="sparks"):
            yield Spark("in/s", id="spark-in")
            yield Spark("out/s", id="spark-out")
            yield Spark("queued", id="spark-queue")
            yield Spark("p99", id="spark-p99")
        with Container(id="split"):
            yield ClientTable(client_columns.BUSIEST, id="clients")
            with Container(id="events-pane"):
                yield Title(id="events-title")
                yield EventList(id="events")

    def draw(self, changes: Changes, now_ms: int) -> None:
        if changes & (Changes.HISTORY | Changes.NODES):
            self._draw_sparks()
        self.query_one(ClientTable).show_clients(self.feed, now_ms, self.faults_only)
        if changes & Changes.EVENTS:
            self.draw_events(now_ms)
            shown, happened = self.feed.events_per_second
            self.query_one("#events-title", Title).say(f"events {number(shown)} of {number(happened)}/s")

    def _draw_sparks(self) -> None:
        curves = self.feed.curves
        queued = sum(
            node.queues[name].depth
            for node in self.feed.store.nodes.values()
            if node.state != "gone"
            for name in ("transmit", "send_back")
            if name in node.queues
        )
        self.query_one("#spark-in", Spark).update(self.feed.rate("accepted"), curves.accepted)
        self.query_one("#spark-out", Spark).update(self.feed.rate("written"), curves.written)
        self.query_one("#spark-queue", Spark).update(number(queued), curves.queued)
        self.query_one("#spark-p99", Spark).update(milliseconds(curves.latest_p99_ms), curves.p99_ms)

    @on(LiveTable.Picked, "#clients")
    def _pick_client(self, event: LiveTable.Picked) -> None:
        if isinstance(event.row, Client):
            self.monitor.open_user(event.row.user_id, event.row.id)

    def user_of(self, row: Any) -> tuple[str, str]:
        return (row.user_id, row.id) if isinstance(row, Client) else super().user_of(row)
