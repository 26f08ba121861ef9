"""Every key does what the help says it does."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fake_source import live
from textual.binding import Binding
from tui_dashboard import Dashboard, Open

from kama.monitor_protocol import Drain, Kick, Send, Sub
from kama.tui.keys import MONITOR_KEYS
from kama.tui.screens.dialogs import Form
from kama.tui.screens.help import HelpScreen
from kama.tui.screens.trace import TraceScreen
from kama.tui.screens.user import UserScreen
from kama.tui.widgets.live_table import LiveTable

CHECKS: dict[str, Callable[[Dashboard], Awaitable[None]]] = {}


def table(it: Dashboard) -> LiveTable[object]:
    found = it.app.monitor_screen.table  # type: ignore[union-attr]
    assert found is not None
    return found


def written() -> list[Path]:
    """The files in the current folder, which is the test's own."""
    return list(Path().glob("kama-*"))


def last_sub(it: Dashboard) -> Sub:
    return [frame for frame in it.source.sent if isinstance(frame, Sub)][-1]


def checks(*ids: str) -> Callable[[Callable[[Dashboard], Awaitable[None]]], Callable[[Dashboard], Awaitable[None]]]:
    def register(check: Callable[[Dashboard], Awaitable[None]]) -> Callable[[Dashboard], Awaitable[None]]:
        CHECKS.update(dict.fromkeys(ids, check))
        return check

    return register


@checks(*(f"screen.{name}" for name in ("overview", "clients", "messages", "queues", "nodes", "log")))
async def goes_to_each_screen(it: Dashboard) -> None:
    for key, name in zip("234561", ("clients", "messages", "queues", "nodes", "log", "overview"), strict=True):
        await it.press(key)
        assert it.app.current_mode == name


@checks("screen.back")
async def goes_back(it: Dashboard) -> None:
    await it.press("enter")
    assert isinstance(it.app.screen, UserScreen)
    await it.press("escape")
    assert not isinstance(it.app.screen, UserScreen)


@checks("table.up", "table.down", "table.first", "table.last", "table.page_up", "table.page_down")
async def moves_in_a_table(it: Dashboard) -> None:
    rows = table(it).rows
    for keys, at in (("j", 1), ("k", 0), ("G", -1), ("g", 0), ("down", 1), ("up", 0), ("end", -1), ("home", 0)):
        await it.press(keys)
        assert table(it).cursor_row is rows[at], keys
    await it.press("pagedown")
    assert table(it).cursor_row not in (rows[0], rows[1])
    await it.press("pageup")
    assert table(it).cursor_row is rows[0]


@checks("table.open")
async def opens_a_row(it: Dashboard) -> None:
    await it.press("enter")
    assert isinstance(it.app.screen, UserScreen) and it.app.screen.user_id == "U000540"


@checks("view.filter")
async def filters_on_the_node_and_here(it: Dashboard) -> None:
    await it.press("slash", *"U777", "enter")
    assert last_sub(it).clients.filter == "U777" and last_sub(it).events.filter == "U777"  # type: ignore[union-attr]
    assert [client.user_id for client in table(it).rows] == ["U777777"]  # type: ignore[attr-defined]


@checks("view.pause")
async def pauses_and_goes_on(it: Dashboard) -> None:
    await it.press("p")
    assert "PAUSED" in it.text
    await it.press("p")
    assert "PAUSED" not in it.text


@checks("view.faults")
async def shows_faults_only(it: Dashboard) -> None:
    await it.press("f")
    assert len(table(it).rows) == 3
    await it.press("f")
    assert len(table(it).rows) > 3


@checks("view.sort", "view.reverse")
async def sorts(it: Dashboard) -> None:
    await it.press("2", "s")
    assert table(it).sort_column == "in" and last_sub(it).clients.sort == "in"
    assert last_sub(it).clients.descending
    await it.press("S")
    assert not last_sub(it).clients.descending
    assert [client.id for client in table(it).rows][0] == "c24"  # type: ignore[attr-defined]


@checks("view.lock")
async def locks_the_rows(it: Dashboard) -> None:
    await it.press("o")
    assert table(it).locked
    await it.press("o")
    assert not table(it).locked


@checks("view.cause")
async def goes_to_the_cause(it: Dashboard) -> None:
    await it.press("exclamation_mark")
    assert it.app.current_mode == "nodes"


@checks("view.faster", "view.slower")
async def changes_the_pace(it: Dashboard) -> None:
    await it.press("minus")
    assert last_sub(it).interval_ms == 500
    await it.press("plus")
    assert last_sub(it).interval_ms == 250


@checks("do.kick")
async def kicks(it: Dashboard) -> None:
    await it.press("x", "enter", *"spam", "enter")
    (kick,) = [frame for frame in it.source.sent if isinstance(frame, Kick)]
    assert (kick.user_id, kick.reason) == ("U000540", "spam")
    assert isinstance(it.app.screen, Form)
    assert it.app.screen.outcome == "✔ closed 2 connections of U000540 with 4002"


@checks("do.message")
async def sends(it: Dashboard) -> None:
    await it.press("m", "enter", *"U1", "enter", "enter")
    (send,) = [frame for frame in it.source.sent if isinstance(frame, Send)]
    assert (send.send_id, send.receive_id, send.content) == ("U000540", "U1", "test")


@checks("do.drain")
async def drains_whoever_types_its_name(it: Dashboard) -> None:
    await it.press("D", *"n2", "enter")
    assert not [frame for frame in it.source.sent if isinstance(frame, Drain)]
    await it.press("backspace", "1", "enter")
    assert len([frame for frame in it.source.sent if isinstance(frame, Drain)]) == 1


@checks("do.trace")
async def traces(it: Dashboard) -> None:
    await it.press("t", *"2125235801066311680", "enter")
    assert isinstance(it.app.screen, TraceScreen) and it.app.screen.uuid == "2125235801066311680"


@checks("do.retry")
async def retries(it: Dashboard) -> None:
    await it.press("r")
    assert it.source.retries == 1


@checks("keep.export")
async def exports(it: Dashboard) -> None:
    await it.press("e")
    files = {path.suffix: path for path in written()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    (first, *_) = csv.DictReader(files[".csv"].read_text(encoding="utf-8").splitlines())
    assert first["user"] == "U000540"
    assert json.loads(files[".json"].read_text(encoding="utf-8"))[0]["queued_bytes"] == 21_000


@checks("keep.picture")
async def saves_a_picture(it: Dashboard) -> None:
    await it.press("w")
    (picture,) = written()
    assert picture.read_text(encoding="utf-8").startswith("<svg")


@checks("keep.copy")
async def copies_the_id(it: Dashboard) -> None:
    await it.press("y")
    assert it.app.clipboard == "U000540"


@checks("app.help")
async def shows_help(it: Dashboard) -> None:
    await it.press("question_mark")
    assert isinstance(it.app.screen, HelpScreen)
    assert "Kick a user" in it.text or "Keys" in it.text


@checks("app.palette")
async def opens_the_palette(it: Dashboard) -> None:
    await it.press("colon")
    assert it.app.screen.__class__.__name__ == "CommandPalette"


@checks("app.quit")
async def quits(it: Dashboard) -> None:
    await it.pilot.press("q")
    await it.pilot.pause()
    assert not it.app.is_running or it.app._exit


async def test_every_binding_has_a_check() -> None:
    ids = {binding.id for binding in (*MONITOR_KEYS, *LiveTable.BINDINGS) if isinstance(binding, Binding)}
    assert ids == set(CHECKS)


@pytest.mark.parametrize("check", list(dict.fromkeys(CHECKS.values())), ids=lambda check: check.__name__)
async def test_a_key_does_what_it_is_for(dashboard: Open, check: Callable[[Dashboard], Awaitable[None]]) -> None:
    async with dashboard(*live()) as it:
        await check(it)


@pytest.mark.parametrize(("key", "action"), [("x", "kick"), ("m", "send"), ("D", "drain")])
async def test_an_action_that_is_not_to_be_had_says_why(dashboard: Open, key: str, action: str) -> None:
    async with dashboard(*live(), read_only=True) as it:
        await it.press(key)
        assert not isinstance(it.app.screen, Form)
        assert f"no {action}: this monitor was started with --read-only" in it.text


async def test_other_keys_can_be_given_by_id(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.app.set_keymap({"view.pause": "v"})
        await it.press("v")
        assert it.app.paused
