"""`kama monitor`: the dashboard, or with --once what it would show first, as text or JSON."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from kama.commands.common import AsJson, ConfigFile, DataDir, TokenFile, duration, run
from kama.commands.in_browser import show_in_browser
from kama.commands.snapshot import show_snapshot
from kama.commands.watching import FilterText, FollowAll, Servers, Tokens, check_filter, find_servers, once
from kama.errors import SettingsError
from kama.monitor.options import MonitorOptions, Theme
from kama.monitor_protocol import INTERVAL_MS_MAX, INTERVAL_MS_MIN
from kama.units import format_duration


def _interval(text: str | float) -> float:
    """Typer sends a default through it as well."""
    seconds = duration(text)
    if not INTERVAL_MS_MIN <= seconds * 1000 <= INTERVAL_MS_MAX:
        least, most = format_duration(INTERVAL_MS_MIN / 1000), format_duration(INTERVAL_MS_MAX / 1000)
        raise typer.BadParameter(f"expected {least} to {most}, got {text!r}")
    return seconds


def monitor(
    server: Servers = None,
    follow_all: FollowAll = False,
    show_once: Annotated[bool, typer.Option("--once", help="Print one snapshot and end")] = False,
    as_json: AsJson = False,
    interval: Annotated[
        float, typer.Option(parser=_interval, metavar="DURATION", help="Between two updates, 250ms to 10s")
    ] = INTERVAL_MS_MIN / 1000,
    terms: FilterText = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer nothing that changes anything")] = False,
    admin: Annotated[
        bool, typer.Option("--admin", help="Where no token is given: make an admin's, who may kick, send and drain")
    ] = False,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Record everything into a new file")] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Record without names, addresses and texts")] = False,
    replay: Annotated[Path | None, typer.Option(metavar="FILE", help="Show a recording instead of a node")] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=100, help="How fast to play it")] = 1.0,
    theme: Annotated[Theme, typer.Option(help="Colours")] = "auto",
    ascii_only: Annotated[bool, typer.Option("--ascii", help="For a terminal that shows nothing else")] = False,
    in_browser: Annotated[bool, typer.Option("--web", help="In a browser of this machine, read-only")] = False,
    web_port: Annotated[int, typer.Option(min=1, max=65535, help="Where the browser finds it")] = 8765,
    web_actions: Annotated[bool, typer.Option("--web-actions", help="Not read-only in the browser")] = False,
    token_file: TokenFile = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Watch nodes: who is connected, what waits where, what fails, and what became of each message."""
    check_filter(terms)
    _check(show_once, as_json, in_browser, record, redact, replay, token_file)
    servers = find_servers(server)
    read_only = read_only or (in_browser and not web_actions)
    tokens = Tokens(config_file, data_dir, token_file, servers, "admin" if admin and not read_only else "viewer")
    if show_once:
        run(show_snapshot(servers, once(tokens, token_file), follow_all=follow_all, terms=terms, as_json=as_json))
        return
    options = MonitorOptions(
        servers=servers, token=tokens, token_note="" if replay else tokens.note, follow_all=follow_all,
        interval_ms=round(interval * 1000), read_only=read_only, record=record, redact=redact, replay=replay,
        speed=speed, theme=theme, ascii=ascii_only, filter=terms,
    )  # fmt: skip
    if in_browser:
        show_in_browser(options, tokens, web_port)
    else:
        _draw(options)


def _draw(options: MonitorOptions) -> None:
    if not _has_terminal():
        raise SettingsError("expected a terminal to draw on, got none", hint="use kama monitor --once, or kama tail")
    from kama.tui.run import run_monitor

    run_monitor(options)


def _has_terminal() -> bool:
    """stderr as well: that is where Textual draws, unless it was given another driver."""
    return "TEXTUAL_DRIVER" in os.environ or all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _check(
    show_once: bool,
    as_json: bool,
    in_browser: bool,
    record: Path | None,
    redact: bool,
    replay: Path | None,
    token_file: str | None,
) -> None:
    if as_json and not show_once:
        raise typer.BadParameter("expected --once beside it: a dashboard is no JSON", param_hint="--json")
    if redact and record is None:
        raise typer.BadParameter("expected --record FILE beside it", param_hint="--redact")
    if record is not None and (show_once or in_browser or replay is not None):
        raise typer.BadParameter("expected a live dashboard to record", param_hint="--record")
    if replay is not None and show_once:
        raise typer.BadParameter("expected either --replay or --once", param_hint="--replay")
    if token_file == "-" and not show_once:
        raise typer.BadParameter("expected a file: a dashboard reads its keys from stdin", param_hint="--token-file")
