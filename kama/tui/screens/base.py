"""MonitorScreen: what all screens share: state on top, a body, the filter and the keys below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Footer

from kama.errors import BadParameter
from kama.monitor.store import Changes
from kama.monitor_protocol import Event
from kama.tui import export, state_words
from kama.tui.feed import Feed
from kama.tui.keys import MONITOR_KEYS, REPLAY_KEYS
from kama.tui.widgets.banner import Banner, Welcome
from kama.tui.widgets.event_list import EventList
from kama.tui.widgets.filter_line import FilterLine
from kama.tui.widgets.live_table import LiveTable
from kama.tui.widgets.status_bar import StatusBar
from kama.tui.widgets.verdict_bar import VerdictBar

if TYPE_CHECKING:
    from kama.tui.app import MonitorApp

_ALL = ~Changes.NONE
# Where there is one node, only these tables have to name it.
_NODE = frozenset({"node"})
_OF_NODES = ("nodes", "queues")


class MonitorScreen(Screen[None]):
    """A subclass gives `body` and draws in `draw`, which is called when something changed, and once a second."""

    BINDINGS: ClassVar[list[BindingType]] = [*MONITOR_KEYS, *REPLAY_KEYS]
    HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [
        (0, "-tiny"), (40, "-narrow"), (72, "-normal"), (110, "-wide"),
    ]  # fmt: skip
    VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-flat"), (10, "-short"), (18, "-tall")]

    def __init__(self) -> None:
        super().__init__()
        self.faults_only = False
        self._drawn_ms = 0
        self._is_whole = False

    @property
    def monitor(self) -> MonitorApp:
        from kama.tui.app import MonitorApp

        assert isinstance(self.app, MonitorApp)
        return self.app

    @property
    def feed(self) -> Feed:
        return self.monitor.feed

    def compose(self) -> ComposeResult:
        yield StatusBar()
        yield VerdictBar()
        yield Banner()
        with Container(id="body"):
            yield from self.body()
        yield Welcome()
        yield FilterLine()
        yield Footer(compact=True, show_command_palette=False)

    def body(self) -> Iterable[Widget]:
        raise NotImplementedError

    def draw(self, changes: Changes, now_ms: int) -> None:
        """`now_ms` by the clock of the watched node."""
        raise NotImplementedError

    # --- what is shown

    def on_mount(self) -> None:
        """All that is within is there by now, and not before."""
        self._is_whole = True
        self.show(_ALL)

    def on_unmount(self) -> None:
        self._is_whole = False

    def on_screen_resume(self) -> None:
        self.show(_ALL)

    def on_resize(self) -> None:
        self.call_after_refresh(self.show, _ALL)

    def show(self, changes: Changes) -> None:
        """The state always; the data when it changed, or when ages have to move on."""
        if not self._is_whole or self.query_one_optional(StatusBar) is None:
            return  # not there yet, or not any more
        feed, now_ms = self.feed, self.feed.now_ms()
        self._show_state(feed, now_ms)
        if self.monitor.paused:
            return
        if changes or now_ms - self._drawn_ms >= 1000 or now_ms < self._drawn_ms:
            self._drawn_ms = now_ms
            only_one = len(feed.store.nodes) < 2
            for table in self.query(LiveTable):
                table.hidden = _NODE if only_one and table.id not in _OF_NODES else frozenset()
            self.draw(changes, feed.node_now_ms)

    def _show_state(self, feed: Feed, now_ms: int) -> None:
        width = self.size.width
        badges, facts, tail = state_words.status(self.monitor, now_ms)
        self.query_one(StatusBar).show_status(badges, facts, tail, width)
        self.query_one(VerdictBar).show_verdict(feed, now_ms, tiny=self.has_class("-tiny") or self.has_class("-flat"))
        first_run = not feed.has_data
        self.query_one(Banner).show(*(() if first_run else state_words.banner(feed, now_ms)))
        if first_run:
            self.query_one(Welcome).show(*state_words.welcome(feed, now_ms))
        self.set_class(first_run, "first-run")
        self.set_class(not feed.is_current, "stale")

    @property
    def table(self) -> LiveTable[Any] | None:
        """The table that keys work on: the focused one, else the first."""
        if isinstance(self.focused, LiveTable):
            return self.focused
        tables = list(self.query(LiveTable))
        return tables[0] if tables else None

    # --- what its keys do

    def on_key(self) -> None:
        for table in self.query(LiveTable):
            table.touch()

    def action_sort(self) -> None:
        if self.table is not None:
            self.table.sort_next()

    def action_reverse(self) -> None:
        if self.table is not None and self.table.sort_column is not None:
            self.table.sort(self.table.sort_column)

    def action_lock(self) -> None:
        if self.table is not None:
            self.monitor.note("rows stay where they are" if self.table.toggle_lock() else "rows move again")

    def action_faults(self) -> None:
        self.faults_only = not self.faults_only
        self.monitor.note("only what is faulty" if self.faults_only else "everything")
        self.show(_ALL)

    def action_filter(self) -> None:
        self.query_one(FilterLine).open(self.feed.filter)

    @on(FilterLine.Applied)
    async def _apply_filter(self, event: FilterLine.Applied) -> None:
        try:
            await self.feed.filter_by(event.text)
        except BadParameter as error:  # checked while it was typed
            self.monitor.note(error.message, "error")
        self.show(_ALL)

    def action_export(self) -> None:
        if self.table is not None:
            self.monitor.note(export.export_table(self.table, self.name_of_table, self.feed.node_now_ms))

    @property
    def name_of_table(self) -> str:
        return (self.table.id if self.table is not None else None) or "table"

    def action_copy(self) -> None:
        if text := self.id_of(self.table.cursor_row if self.table is not None else None):
            self.app.copy_to_clipboard(text)
            self.monitor.note(f"copied {text}")
        else:
            self.monitor.note("there is no row with an id to copy", "warning")

    def id_of(self, row: Any) -> str:
        """What is worth copying of a row, or of a screen that is about one thing; empty where there is nothing."""
        for name in ("uuid", "user_id", "name", "id"):
            if value := getattr(row, name, ""):
                return str(value)
        return ""

    def user_of(self, row: Any) -> tuple[str, str]:
        """Whom a row is about, and by which connection; empty where it is about nobody."""
        user_id = getattr(row, "user_id", "") or getattr(row, "send_id", "")
        return str(user_id), ""

    def action_kick(self) -> None:
        user_id, connection = self.user_of(self.table.cursor_row if self.table is not None else None)
        self.monitor.open_kick(user_id, connection)

    def action_message(self) -> None:
        self.monitor.open_message(self.user_of(self.table.cursor_row if self.table is not None else None)[0])

    def action_drain(self) -> None:
        self.monitor.open_drain()

    def action_trace(self) -> None:
        row = self.table.cursor_row if self.table is not None else None
        self.monitor.ask_trace(str(getattr(row, "uuid", "")))

    @on(LiveTable.Picked, "EventList")
    def _pick_event(self, event: LiveTable.Picked) -> None:
        if isinstance(event.row, Event) and event.row.uuid:
            self.monitor.open_trace(event.row.uuid)
        elif isinstance(event.row, Event) and event.row.user_id:
            self.monitor.open_user(event.row.user_id, event.row.connection)

    def events(self, failures_only: bool = False) -> Sequence[Event]:
        """Newest first, those that the filter lets through."""
        store, passes = self.feed.store, self.feed.predicate
        events = store.failures if failures_only or self.faults_only else store.events
        return [event for event in reversed(events) if passes(event)]

    def draw_events(self, now_ms: int) -> None:
        self.query_one(EventList).update(self.events(), now_ms)
