"""MessagesScreen: what was sent, and how far each message has come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from textual import on
from textual.widget import Widget

from kama.monitor.messages import Message
from kama.monitor.store import Changes
from kama.tui.cells import clock, size, span
from kama.tui.columns import Cell, Column
from kama.tui.look import Tone
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.event_list import type_name
from kama.tui.widgets.line import Line
from kama.tui.widgets.live_table import LiveTable

View = Literal["all", "unsent", "failed"]
# Every message is unsent for a moment: only then is it worth a look.
UNSENT_AFTER_MS = 2_000
_NOTHING = "no message yet. Try: kama send hello --from U1 --to U2"
_SHOWN = 500
_SAMPLED_MS = 5_000
_ORDER = ("failed", "accepted", "stored", "sent", "delivered", "read")
_TONES: dict[str, Tone] = {"failed": "bad", "accepted": "warn", "stored": "warn", "delivered": "good", "read": "good"}


def is_unsent(message: Message, now_ms: int) -> bool:
    return message.status in ("accepted", "stored") and now_ms - message.at_ms >= UNSENT_AFTER_MS


def _status(message: Message, now_ms: int) -> Cell:
    if message.status == "stored" and message.members and not message.online:
        return "unsent: offline", "warn"
    if message.status == "failed" and message.error:
        return f"failed: {message.error}", "bad"
    return message.status, _TONES.get(message.status, "")


def _took(message: Message, now_ms: int) -> Cell:
    times, begin = message.times, message.times.get("accepted")
    end = next((times[kind] for kind in ("sent", "written", "stored") if kind in times), None)
    return "–" if begin is None or end is None else f"{max(0, end - begin)}ms"


COLUMNS: tuple[Column[Message], ...] = (
    Column("time", "TIME", 12, lambda message, now_ms: (clock(message.at_ms, True), "dim")),
    Column("uuid", "UUID", 19, lambda message, now_ms: (message.uuid, "dim"), priority=4),
    Column("from", "FROM", 10, lambda message, now_ms: message.send_id or "–", grow=1),
    Column("to", "TO", 10, lambda message, now_ms: message.receive_id or message.conversation or "–", grow=1),
    Column("type", "TYPE", 5, lambda message, now_ms: type_name(message.type) if message.send_id else "–", priority=5),
    Column(
        "size",
        "SIZE",
        6,
        lambda message, now_ms: size(message.size) if message.send_id else "–",
        priority=6,
        align="right",
    ),
    Column("status", "STATUS", 15, _status, grow=2),
    Column("took", "TOOK", 6, _took, priority=1, align="right"),
    Column("age", "AGE", 6, lambda message, now_ms: span(now_ms - message.at_ms), priority=2, align="right"),
    Column("node", "NODE", 14, lambda message, now_ms: (message.node, "dim"), priority=7, align="tail"),
)


class MessagesScreen(MonitorScreen):
    """All, those that nobody took yet, those that failed: `f` goes from one to the next."""

    view: View = "all"

    def body(self) -> Iterable[Widget]:
        yield Line(id="messages-title")
        yield LiveTable(
            COLUMNS,
            lambda message: message.uuid,
            hints=(_NOTHING,),
            newest_first=True,
            id="messages",
        )

    def action_faults(self) -> None:
        views: tuple[View, ...] = ("all", "failed", "unsent")
        self.view = views[(views.index(self.view) + 1) % len(views)]
        self.show(~Changes.NONE)

    def draw(self, changes: Changes, now_ms: int) -> None:
        """The counts are of all that is known, of whatever is shown of it."""
        messages = [message for message in self.feed.store.messages if self.feed.predicate(message)]
        # Of a message from before events were last left out nobody knows whether its last ones were among them.
        whole = self.feed.sampled_ms + self.feed.node_now_ms - self.feed.now_ms()
        unsent = [message for message in messages if message.at_ms > whole and is_unsent(message, now_ms)]
        failed = [message for message in messages if message.status == "failed"]
        by_view: dict[View, list[Message]] = {"all": messages, "failed": failed, "unsent": unsent}
        table = self.query_one("#messages", LiveTable)
        table.hints = (self._why_none(len(messages)),)
        table.update(by_view[self.view][:_SHOWN], now_ms)
        words: list[tuple[str, Tone]] = []
        for view, rows in by_view.items():
            tone: Tone = "strong" if view == self.view else "dim"
            text = f"{view} {len(rows):,}"
            words += [(f"[{text}]" if view == self.view else f" {text} ", tone), (" ", "")]
        is_sampled = now_ms - whole < _SAMPLED_MS
        hint = " events are sampled: a filter shows all of a few" if is_sampled else " f: next · Enter: trace"
        self.query_one("#messages-title", Line).show([*words, (hint, "warn" if is_sampled else "dim")])

    def _why_none(self, passing: int) -> str:
        """What stands where no message is shown, though there may be some."""
        if passing:
            return f"none of {passing:,} messages {'has failed' if self.view == 'failed' else 'is unsent'}"
        known = len(self.feed.store.messages)
        return f"none of {known:,} messages passes the filter {self.feed.filter}" if known else _NOTHING

    @on(LiveTable.Picked)
    def _pick(self, event: LiveTable.Picked) -> None:
        if isinstance(event.row, Message):
            self.monitor.open_trace(event.row.uuid)
