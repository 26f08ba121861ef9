"""ClientTable: the connections that the nodes picked for us, in the order that is asked of the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kama.monitor_protocol import Client
from kama.tui.client_columns import is_faulty
from kama.tui.columns import Column
from kama.tui.widgets.live_table import LiveTable

if TYPE_CHECKING:
    from kama.tui.feed import Feed

_NOBODY = (
    "0 connections. Try, in another terminal:",
    "",
    "kama send hello --from U1 --to U2",
    "kama bench --pairs 20 --duration 60s",
    "kama demo    a node of its own with made-up users",
)


class ClientTable(LiveTable[Client]):
    """Rows are told apart by the connection's id."""

    def __init__(self, columns: Sequence[Column[Client]], *, id: str) -> None:
        super().__init__(columns, lambda client: client.id, sort="queue", hints=_NOBODY, id=id)

    def show_clients(self, feed: Feed, now_ms: int, faults_only: bool) -> None:
        rows = [client for client in feed.store.clients.values() if feed.predicate(client)]
        if faults_only:
            rows = [client for client in rows if is_faulty(client)]
        if feed.store.total and not rows:
            what = "is slow, drops or is refused anything" if faults_only else f"passes the filter {feed.filter}"
            self.hints = (f"none of {feed.store.total:,} connections {what}",)
        else:
            self.hints = _NOBODY
        self.update(rows, now_ms)
