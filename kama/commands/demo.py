"""`kama demo`: a node with made-up people on it, and the dashboard, in one terminal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kama.commands.common import OPERATOR, duration, note
from kama.errors import KamaError, SettingsError

if TYPE_CHECKING:
    from kama.demo import Crowd, DemoNode, Issue

_TOKEN_TTL = 86_400.0 * 7


def demo(
    users: Annotated[int, typer.Option(min=2, max=1000, help="Made-up people")] = 40,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="Messages a second, all together")] = 20.0,
    for_how_long: Annotated[
        float | None, typer.Option("--for", parser=duration, metavar="DURATION", help="End after that long")
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Print the node's URL instead of the dashboard")] = False,
) -> None:
    """See kama at work: a node in a temporary folder, people who chat on it, and the dashboard. All of it goes when
    you quit."""
    terminal = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    if not (headless or terminal):
        raise SettingsError("expected a terminal to draw on, got none", hint="use kama demo --headless")
    from kama.demo import Crowd, DemoNode

    with _ended_by_sigterm(), DemoNode() as node:
        issue = _issuer(node)
        crowd = Crowd(node.url, issue, users, rate)
        if headless:
            _run_headless(node, crowd, for_how_long)
        else:
            _run_dashboard(node, crowd, issue, for_how_long)


def _issuer(node: DemoNode) -> Issue:
    from kama.server.auth import TokenKeeper

    keeper = TokenKeeper(node.secret)

    def issue(user_id: str, for_operator: bool) -> str:
        return keeper.issue(user_id, _TOKEN_TTL, "admin" if for_operator else "user")

    return issue


def _run_headless(node: DemoNode, crowd: Crowd, seconds: float | None) -> None:
    print(node.url, flush=True)
    note(f"a demo of kama; watch it: kama monitor -s {node.url} --data-dir {node.data_dir} (Ctrl-C ends it)")
    with contextlib.suppress(TimeoutError):
        asyncio.run(_for(crowd, seconds))


async def _for(crowd: Crowd, seconds: float | None) -> None:
    from kama.bench.load import first_failure

    with first_failure():
        async with asyncio.timeout(seconds):
            await crowd.run()


def _run_dashboard(node: DemoNode, crowd: Crowd, issue: Issue, seconds: float | None) -> None:
    from kama.monitor.options import MonitorOptions
    from kama.tui.run import run_monitor

    options = MonitorOptions(servers=(node.url,), token=lambda: issue(OPERATOR, True), token_note="this is a demo")
    with _in_background(crowd):
        run_monitor(options, seconds=seconds)


@contextlib.contextmanager
def _in_background(crowd: Crowd) -> Iterator[None]:
    """The people have a loop and a thread of their own: the dashboard must not wait for them. Raises afterwards what
    ended them before their time."""
    from kama.bench.load import first_failure

    loop = asyncio.new_event_loop()
    failures: list[KamaError] = []

    def live() -> None:
        try:
            with first_failure():
                loop.run_until_complete(people)
        except asyncio.CancelledError:
            pass
        except KamaError as error:
            failures.append(error)

    people = loop.create_task(crowd.run(), name="people of the demo")
    thread = threading.Thread(target=live, name="people of the demo")
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # they ended by themselves
            loop.call_soon_threadsafe(people.cancel)
        thread.join()
        loop.close()
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: node and folder go in any case."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
