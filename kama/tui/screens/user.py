"""UserScreen: one user: its connections, what it is in, what it sent and was sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.widget import Widget

from kama.errors import KamaError
from kama.monitor.messages import Message
from kama.monitor.store import Changes
from kama.monitor_protocol import Client, User, UserDetail
from kama.tui import client_columns
from kama.tui.cells import number, size, span
from kama.tui.keys import DETAIL_KEYS
from kama.tui.screens import messages
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.line import Line, Title, Words, facts_in
from kama.tui.widgets.live_table import LiveTable
from kama.tui.widgets.spark import Spark

_ASK_EVERY_MS = 2_000
_PAST, _MESSAGES, _GROUPS = 240, 50, 12


class UserScreen(MonitorScreen):
    """Opened on a connection: its queue is followed, and is said to have ended when it has."""

    BINDINGS: ClassVar[list[BindingType]] = DETAIL_KEYS

    def __init__(self, user_id: str, connection: str) -> None:
        super().__init__()
        self.user_id = user_id
        self.connection = connection
        self._client: Client | None = None
        self._detail: UserDetail | None = None
        self._problem = ""
        self._depths: deque[float] = deque(maxlen=_PAST)
        self._asked_ms = 0
        self._second = 0

    def body(self) -> Iterable[Widget]:
        yield Line(id="user-head")
        yield Spark("queue", id="user-queue")
        yield LiveTable(
            client_columns.ALL, lambda client: client.id, hints=("not connected",), sort="since", id="connections"
        )
        yield Title(id="user-title")
        yield LiveTable(
            messages.COLUMNS, lambda message: message.uuid, hints=("no message of this user was seen yet",),
            newest_first=True, id="messages",
        )  # fmt: skip

    def draw(self, changes: Changes, now_ms: int) -> None:
        store = self.feed.store
        if now_ms - self._asked_ms >= _ASK_EVERY_MS and self.feed.is_current and self.feed.replay is None:
            self._asked_ms = now_ms
            self._ask()
        shown = [client for client in store.clients.values() if client.user_id == self.user_id]
        known = {client.id: client for client in (self._detail.clients if self._detail else ())}
        clients = {**known, **{client.id: client for client in shown}}
        self._client = clients.get(self.connection) or next(iter(clients.values()), None)
        self.query_one("#user-head", Line).show(*self._head(now_ms))
        if self._client is not None and now_ms // 1000 != self._second:
            self._second = now_ms // 1000
            self._depths.append(float(self._client.depth))
        depth = number(self._client.depth) if self._client else "–"
        self.query_one("#user-queue", Spark).update(depth, list(self._depths))
        self.query_one("#connections", LiveTable).update(list(clients.values()), now_ms)
        mine = [message for message in store.messages if self.user_id in (message.send_id, message.receive_id)]
        self.query_one("#messages", LiveTable).update(mine[:_MESSAGES], now_ms)
        self.query_one("#user-title", Title).say(f"last {_MESSAGES} messages")

    @work(exclusive=True, group="ask", exit_on_error=False)
    async def _ask(self) -> None:
        try:
            outcomes = await self.feed.request_all(User, user_id=self.user_id)
        except KamaError as error:
            self._problem = error.message
            return
        details = [outcome.user for outcome in outcomes if outcome.user is not None]
        if details:
            self._problem = ""
            self._detail = details[0]
            self._detail.clients = [client for detail in details for client in detail.clients]

    def _head(self, now_ms: int) -> list[Words]:
        client, detail = self._client, self._detail
        lines: list[Words] = [[("User ", "dim"), (self.user_id, "strong")]]
        if detail is not None:
            groups = " ".join(detail.groups[:_GROUPS]) or "none"
            more = f" and {len(detail.groups) - _GROUPS} more" if len(detail.groups) > _GROUPS else ""
            lines[0] = [*lines[0], (f" · groups: {groups}{more}", "")]
            if detail.elsewhere:
                lines[0] = [*lines[0], (f" · {detail.elsewhere} more on other nodes", "")]
        if self._problem:
            lines.append([(f"✖ {self._problem}", "bad")])
        if client is not None:
            facts = _connection_facts(client, now_ms)
            lines += facts_in(facts, self.size.width, client_columns.fullness(client))
        elif ended := next((one for one in self.feed.store.closed if one.id == self.connection), None):
            ago = span(now_ms - ended.until_ms)
            lines.append([(f"✖ closed {ago} ago with {ended.code} {ended.reason}", "warn")])
        return lines

    @on(LiveTable.Picked, "#messages")
    def _pick(self, event: LiveTable.Picked) -> None:
        if isinstance(event.row, Message):
            self.monitor.open_trace(event.row.uuid)

    def id_of(self, row: object) -> str:
        return self.user_id

    def user_of(self, row: object) -> tuple[str, str]:
        return self.user_id, self.connection


def _connection_facts(client: Client, now_ms: int) -> list[str]:
    return [
        client.device or "no device named",
        *(["posts only"] if client.post_only else []),
        f"on {client.node} from {client.address}",
        f"for {span(now_ms - client.since_ms)}",
        f"{client.depth} of {client.capacity} waiting ({size(client.queued_bytes)}), at most {client.high}",
        f"{number(client.received)} in, {number(client.written)} out",
    ]
