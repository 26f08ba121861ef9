"""ClientsScreen: who is connected, and below: who no longer is, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.containers import Container
from textual.widget import Widget

from kama.monitor.store import Changes
from kama.monitor_protocol import Client, Closed
from kama.tui import client_columns
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.client_table import ClientTable
from kama.tui.widgets.line import Line, Title
from kama.tui.widgets.live_table import LiveTable


class ClientsScreen(MonitorScreen):
    """Tab goes between the two tables."""

    def body(self) -> Iterable[Widget]:
        yield Line(id="clients-title")
        yield ClientTable(client_columns.ALL, id="clients")
        with Container(id="closed-pane"):
            yield Title(id="closed-title")
            yield LiveTable(
                client_columns.CLOSED,
                lambda closed: closed.id,
                hints=("no connection has ended yet",),
                newest_first=True,
                id="closed",
            )

    def draw(self, changes: Changes, now_ms: int) -> None:
        store = self.feed.store
        table = self.query_one(ClientTable)
        table.show_clients(self.feed, now_ms, self.faults_only)
        shown = f"{len(table.rows):,} of {store.total:,} connections"
        if self.feed.filter:
            shown += f", {store.matched:,} pass the filter {self.feed.filter}"
        words = [shown, f"by {table.sort_column}"]
        words += ["rows locked"] if table.locked else []
        words += ["faults only"] if self.faults_only else []
        self.query_one("#clients-title", Line).show([(" · ".join(words), "dim")])
        if changes & Changes.CLOSED:
            closed = [one for one in store.closed if self.feed.predicate(one)]
            self.query_one("#closed", LiveTable).update(closed, now_ms)
            self.query_one("#closed-title", Title).say("closed, newest first")

    @on(LiveTable.Sorted, "#clients")
    async def _order(self, event: LiveTable.Sorted) -> None:
        if order := client_columns.ORDERS.get(event.column):
            await self.feed.order_by(order, event.descending)

    @on(LiveTable.Picked)
    def _pick(self, event: LiveTable.Picked) -> None:
        if isinstance(event.row, Client | Closed):
            self.monitor.open_user(event.row.user_id, event.row.id)

    def user_of(self, row: Any) -> tuple[str, str]:
        return (row.user_id, row.id) if isinstance(row, Client) else super().user_of(row)
