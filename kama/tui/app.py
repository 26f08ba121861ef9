"""MonitorApp: one source, one store, the screens that draw it; and what a key asks of the program as a whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.notifications import SeverityLevel
from textual.screen import Screen

from kama.monitor.options import MonitorOptions
from kama.monitor.source import Source
from kama.monitor.store import Changes
from kama.tui import actions, export
from kama.tui.cells import clean
from kama.tui.feed import Feed
from kama.tui.look import THEMES, theme_name, to_ascii
from kama.tui.screens.base import MonitorScreen
from kama.tui.screens.clients import ClientsScreen
from kama.tui.screens.help import HelpScreen
from kama.tui.screens.log import LogScreen
from kama.tui.screens.messages import MessagesScreen
from kama.tui.screens.nodes import NodesScreen
from kama.tui.screens.overview import OverviewScreen
from kama.tui.screens.queues import QueuesScreen
from kama.tui.screens.trace import TraceScreen
from kama.tui.screens.user import UserScreen

TICK_S = 0.25
_UUID_MAX = 19
_UNICODE = ("utf-8", "utf8", "utf-16")


class MonitorApp(App[None], inherit_bindings=False):
    """Ends when it is told to, never by itself: whatever happens to the nodes is shown."""

    CSS_PATH = "app.tcss"
    TITLE = "kama monitor"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", "Quit", show=False, priority=True, system=True)]
    MODES: ClassVar[dict[str, type[Screen[None]]]] = {  # type: ignore[assignment]
        "overview": OverviewScreen,
        "clients": ClientsScreen,
        "messages": MessagesScreen,
        "queues": QueuesScreen,
        "nodes": NodesScreen,
        "log": LogScreen,
    }
    DEFAULT_MODE = "overview"

    def __init__(self, source: Source, options: MonitorOptions) -> None:
        super().__init__()
        self.feed = Feed(source, options)
        self.paused = False
        self.ascii_only = options.ascii or (sys.stdout.encoding or "utf-8").lower() not in _UNICODE
        self.set_class(self.ascii_only, "-ascii")
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = theme_name(options.theme, os.environ)

    # --- the run

    def on_mount(self) -> None:
        if not self.is_headless:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)
        self.run_worker(self._read(), name="reader", exit_on_error=False)
        self.set_interval(TICK_S, self.tick)

    async def _read(self) -> None:
        """What fails here fails for no reason that a node could give: it is told, and what was read stays."""
        try:
            async with self.feed.source:
                await self.feed.run()
        except Exception as error:
            text = f"reading stopped: {type(error).__name__}: {error}"
            self.log.error(text)
            self.feed.logbook.note(self.feed.now_ms(), "error", "kama monitor", text, "bad")
            self.note(text, "error")

    def tick(self) -> None:
        """Draw what changed, on the screen that is seen, also where a form stands over it."""
        changes = self.feed.take_changes()
        if (screen := self.monitor_screen) is not None:
            screen.show(changes)

    @property
    def monitor_screen(self) -> MonitorScreen | None:
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, MonitorScreen)), None)

    @property
    def recorded_bytes(self) -> int | None:
        """None: nothing is recorded."""
        recorder = self.feed.recorder
        return None if recorder is None or recorder.stopped else recorder.bytes

    def note(self, text: str, severity: SeverityLevel = "information") -> None:
        """Tell something in passing."""
        text = clean(text)
        self.notify(to_ascii(text) if self.ascii_only else text, severity=severity, timeout=4, markup=False)

    # --- from screen to screen

    def action_go(self, name: str) -> None:
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.switch_mode(name)

    def action_leave(self) -> None:
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_cause(self) -> None:
        """To where the worst cause can be seen, and to what it is about."""
        causes = self.feed.verdict.causes
        if not causes:
            self.note("all is well: there is no cause to go to")
            return
        cause = causes[0]
        self.action_go(cause.screen)
        self.note(cause.text, "warning")
        if cause.screen == "clients" and cause.subject:
            self.open_user(cause.subject, "")

    def open_trace(self, uuid: str) -> None:
        self.push_screen(TraceScreen(uuid))

    def open_user(self, user_id: str, connection: str) -> None:
        self.push_screen(UserScreen(user_id, connection))

    def ask_trace(self, uuid: str) -> None:
        self.push_screen(actions.ask_form("Trace a message", "Its uuid", uuid, _check_uuid), self._trace_then)

    def _trace_then(self, uuid: str | None) -> None:
        """A form is still there while it tells its result."""
        if uuid:
            self.call_later(self.open_trace, uuid)

    # --- what is done to nodes and users

    def open_kick(self, user_id: str, connection: str) -> None:
        if self._may("kick"):
            self.push_screen(actions.kick_form(self.feed, user_id, connection))

    def open_message(self, sender: str) -> None:
        if self._may("send"):
            self.push_screen(actions.message_form(self.feed, sender), self._trace_then)

    def open_drain(self) -> None:
        if self._may("drain"):
            self.push_screen(actions.drain_form(self.feed))

    def _may(self, action: str) -> bool:
        if reason := self.feed.may(action):
            self.note(f"no {action}: {reason}", "warning")
        return not reason

    # --- what is shown

    def action_pause(self) -> None:
        """The view stands still; reading and recording go on, and nothing is lost when it moves again."""
        self.paused = not self.paused
        self.feed.unseen = 0
        if (screen := self.monitor_screen) is not None:
            screen.show(~Changes.NONE)

    async def action_pace(self, faster: bool) -> None:
        interval_ms = await self.feed.pace(faster)
        self.note(f"every {interval_ms} ms")

    def action_retry(self) -> None:
        self.feed.source.retry_now()

    def action_picture(self) -> None:
        name = f"kama-{time.strftime('%Y%m%d-%H%M%S', time.localtime(self.feed.now_ms() / 1000))}.svg"
        try:
            export.write_private(Path(name), self.export_screenshot(title=self.TITLE))
        except OSError as error:
            self.note(f"could not write {name}: {error.strerror or error}", "error")
        else:
            self.note(f"wrote {Path.cwd() / name}")

    def action_help(self) -> None:
        notes = [f"  {action}: {reason}" for action in ("kick", "send", "drain") if (reason := self.feed.may(action))]
        if notes:
            notes.insert(0, "Not to be had now")
        self.push_screen(HelpScreen(self.bindings_now(), notes))

    def bindings_now(self) -> list[Binding]:
        """Those of the screen, with the keys that they have now; of a recording only where there is one."""
        bindings = [active.binding for active in self.screen.active_bindings.values()]
        return [binding for binding in bindings if self._is_offered(binding)]

    def _is_offered(self, binding: Binding) -> bool:
        return self.feed.replay is not None or not (binding.id or "").startswith("replay.")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette: what the keys do, by name."""
        seen: set[str] = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.id and binding.id not in seen and self._is_offered(binding):
                seen.add(binding.id)
                title = binding.tooltip or binding.description
                yield SystemCommand(title, f"key {binding.key}", _runs(self, active.node, binding.action))

    # --- in a recording

    def action_replay_pause(self) -> None:
        if (replay := self.feed.replay) is not None:
            (replay.resume if replay.is_paused else replay.pause)()

    def action_replay_step(self, frames: int) -> None:
        if (replay := self.feed.replay) is not None:
            replay.step(frames)

    def action_replay_skip(self, seconds: int) -> None:
        if (replay := self.feed.replay) is not None:
            replay.seek(replay.now_ms() + seconds * 1000)

    def action_ask_replay_time(self) -> None:
        replay = self.feed.replay
        if replay is None:
            return

        def then(answer: str | None) -> None:
            if answer:
                replay.seek(replay.recording.moment(answer))

        def check(answer: str) -> str:
            try:
                replay.recording.moment(answer)
            except ValueError as error:
                return str(error)
            return ""

        now = time.strftime("%H:%M:%S", time.localtime(replay.now_ms() / 1000))
        self.push_screen(actions.ask_form("Go to a time", "HH:MM:SS", now, check), then)


def _check_uuid(text: str) -> str:
    is_one = text.isascii() and text.isdigit() and len(text) <= _UUID_MAX
    return "" if is_one else f"expected a message's uuid, up to {_UUID_MAX} digits, got {text[:24] or 'nothing'}"


def _runs(app: MonitorApp, node: DOMNode, action: str) -> Callable[[], None]:
    def run() -> None:
        app.call_later(app.run_action, action, node)

    return run
