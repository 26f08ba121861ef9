"""What is not of now never looks as if it were, and nothing ends the dashboard but its person."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_source import NOW_MS, clients, events, hello, history, link, live, snap
from screen_text import plain_text
from support import eventually
from tui_dashboard import Open

from kama.monitor.link import LinkState
from kama.monitor.recorder import Recorder
from kama.monitor.replay_source import ReplaySource
from kama.monitor_protocol import Client, Delta, Event, Events
from kama.tui.app import MonitorApp
from kama.tui.screens.dialogs import Form
from kama.tui.widgets.live_table import LiveTable


async def test_the_age_of_what_is_stale_goes_on_counting(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.source.put(link(LinkState.STALE, cause="no frame comes"))
        it.source.clock_ms = NOW_MS + 41_000
        await it.draw()
        assert "age 41s" in it.text and "◌ STALE" in it.text
        assert it.app.screen.has_class("stale")
        it.source.put(link())
        await it.draw()
        assert not it.app.screen.has_class("stale")


async def test_nothing_can_be_done_to_what_is_stale(dashboard: Open) -> None:
    async with dashboard(*live(), link(LinkState.STALE)) as it:
        await it.press("x")
        assert not isinstance(it.app.screen, Form)
        assert "no kick: not while the link is stale" in it.text


async def test_while_paused_nothing_moves_and_all_is_there_afterwards(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("p")
        it.source.put(Events(seq=4, items=[Event(at_ms=NOW_MS, kind="alert", node="n1", text="the store fails")]))
        await it.draw()
        assert "the store fails" not in it.text and "+1 new" in it.text
        await it.press("p")
        assert "the store fails" in it.text


async def test_data_goes_on_behind_a_form(dashboard: Open) -> None:
    async with dashboard(*live(), size=(120, 40)) as it:
        await it.press("x")
        it.source.put(Events(seq=4, items=[Event(at_ms=NOW_MS, kind="alert", node="n1", text="the store fails")]))
        await it.draw()
        assert isinstance(it.app.screen, Form) and "the store fails" in it.text


async def test_a_refusal_is_told_in_the_form(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.source.refuses = True
        await it.press("x", "enter", "enter")
        assert isinstance(it.app.screen, Form)
        assert it.app.screen.outcome == "✖ expected the role admin, got viewer"


async def test_one_who_is_filtered_out_can_be_kicked_by_id(dashboard: Open) -> None:
    async with dashboard(*live(), filter="user:nobody") as it:
        await it.press("x", *"U1", "enter", "enter")
        assert isinstance(it.app.screen, Form) and "of U1 with 4002" in it.app.screen.outcome


@pytest.mark.parametrize(
    ("filter", "keys", "told"),
    [
        ("user:nobody", "3", "none of 3 messages passes the filter user:nobody"),
        ("user:U000777", "3f", "none of 1 messages has failed"),
    ],
)
async def test_no_message_that_is_shown_is_told_from_no_message(
    dashboard: Open, filter: str, keys: str, told: str
) -> None:
    async with dashboard(*live(), filter=filter) as it:
        await it.press(*keys)
        assert told in it.text and "no message yet" not in it.text


async def test_the_cursor_stays_on_its_row_when_the_order_changes(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("2", "j")
        table = it.app.screen.query_one("#clients", LiveTable)
        assert table.cursor_row.user_id == "U000633"
        first = [Client(id="c99", user_id="U9", node="n1", depth=100, capacity=100, queued_bytes=9_000_000)]
        it.source.put(Delta(seq=4, base=3, at_ms=NOW_MS, interval_ms=250, clients=first, total=25, matched=25))
        await it.source.taken()
        it.source.clock_ms = NOW_MS + 10_000  # not before: the order of without it would be held from then on
        await it.draw()
        assert table.rows[0].user_id == "U9" and table.cursor_row.user_id == "U000633"


async def test_rows_do_not_move_for_a_while_after_a_key(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.source.clock_ms = NOW_MS + 10_000
        await it.draw()
        await it.press("2", "j")
        first = [Client(id="c99", user_id="U9", node="n1", depth=100, capacity=100, queued_bytes=9_000_000)]
        it.source.put(Delta(seq=4, base=3, at_ms=NOW_MS, interval_ms=250, clients=first, total=25, matched=25))
        await it.draw()
        table = it.app.screen.query_one("#clients", LiveTable)
        assert [table.rows[0].user_id, table.rows[-1].user_id] == ["U000540", "U9"]


async def test_a_header_that_is_clicked_sorts(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("2")
        await it.pilot.click("#clients", offset=(1, 0))
        await it.draw()
        table = it.app.screen.query_one("#clients", LiveTable)
        assert table.sort_column == "user" and table.rows[0].user_id == min(client.user_id for client in clients())


async def test_a_source_that_breaks_is_told_and_ends_nothing(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.source.put("no frame at all")  # type: ignore[arg-type]
        it.source.put(object())  # type: ignore[arg-type]
        await it.press("6")
        assert it.app.is_running


async def test_a_recording_looks_the_same_each_time(tmp_path: Path) -> None:
    assert await replayed(tmp_path / "one") == await replayed(tmp_path / "two")


async def replayed(path: Path) -> list[str]:
    from fake_source import options

    from kama.monitor.frames import Item
    from kama.monitor.store import MonitorStore

    store = MonitorStore()
    recorder = Recorder(path, store, NOW_MS)
    for frame in (link(), hello(), history(), snap(), Events(seq=2, items=events())):
        store.apply("s", frame, NOW_MS)
        recorder.record(Item("s", frame, NOW_MS))
    recorder.close()
    source = ReplaySource(path)
    app = MonitorApp(source, options(replay=path))
    texts = []
    async with app.run_test(size=(100, 30)) as pilot:
        await eventually(lambda: source.is_at_end and app.feed.has_data)
        for key in ("space", "2", "3", "4", "5", "6"):
            await pilot.press(key)
            await pilot.pause()
            app.tick()
            await pilot.pause()
            texts.append(plain_text(app))
        assert "REPLAY" in texts[0] and "U000540" in texts[1]
        for key in ("right_square_bracket", "left_square_bracket", "greater_than_sign", "less_than_sign"):
            await pilot.press(key)
        assert source.is_paused
        await pilot.press("T")
        assert isinstance(app.screen, Form)
    return texts
