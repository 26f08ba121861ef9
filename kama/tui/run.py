"""From the command to the program: what to watch, what to record, and the dashboard on this terminal."""

from __future__ import annotations

import contextlib

from kama.monitor.fan_in import FanInSource
from kama.monitor.live_source import LiveSource
from kama.monitor.options import MonitorOptions
from kama.monitor.recorder import Recorder
from kama.monitor.replay_source import ReplaySource
from kama.monitor.source import Source
from kama.tui.app import MonitorApp


def run_monitor(options: MonitorOptions, *, seconds: float | None = None) -> None:
    """The dashboard on this terminal, until it is told to end, or for so many seconds.

    Raises SettingsError for a recording that cannot be read or made, and SystemExit after a crash, which was told.
    """
    app = MonitorApp(open_source(options), options)
    with contextlib.ExitStack() as stack:
        if options.record is not None:
            recorder = Recorder(options.record, app.feed.store, app.feed.now_ms(), redact=options.redact)
            app.feed.recorder = stack.enter_context(contextlib.closing(recorder))
        if seconds is not None:
            app.call_later(app.set_timer, seconds, app.exit)
        app.run()
    if app.return_code:
        raise SystemExit(app.return_code)


def open_source(options: MonitorOptions) -> Source:
    """What the options say to watch; to be entered."""
    if options.replay is not None:
        return ReplaySource(options.replay, speed=options.speed)

    def watch(server: str) -> LiveSource:
        return LiveSource(server, options.token)

    if len(options.servers) == 1 and not options.follow_all:
        return watch(options.servers[0])
    return FanInSource([watch(server) for server in options.servers], watch if options.follow_all else None)
