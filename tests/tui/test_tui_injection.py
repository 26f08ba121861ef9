"""Whatever nodes and users call themselves, a terminal gets nothing of it but text."""

from __future__ import annotations

import re

import pytest
from fake_source import NOW_MS, hello, history, link, snap
from injection import CORPUS, controls_in
from tui_dashboard import Open

from kama.monitor.frames import Frame
from kama.monitor.link import LinkState
from kama.monitor_protocol import Client, Closed, Event, Events, Node, Queue
from kama.tui.app import MonitorApp

SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def attack() -> list[Frame]:
    """Every text that a node can send, each of the corpus once."""
    nodes = [
        Node(name=text, epoch=text, address=text, version=text, beat_ms=NOW_MS, queues={text: Queue(depth=1)},
             troubles={text: text})
        for text in CORPUS
    ]  # fmt: skip
    clients = [
        Client(id=f"c{text}", user_id=text, node=text, device=text, address=text, error=text, last_ms=NOW_MS)
        for text in CORPUS
    ]
    closed = [Closed(id=f"d{text}", user_id=text, node=text, device=text, reason=text) for text in CORPUS]
    events = [
        event
        for number, text in enumerate(CORPUS)
        for event in (
            Event(at_ms=NOW_MS, kind="accepted", uuid=str(number), send_id=text, receive_id=text, node=text),
            Event(at_ms=NOW_MS, kind="not_stored", uuid=str(number), text=text, node=text),
            Event(at_ms=NOW_MS, kind="refused", user_id=text, text=text, node=text),
            Event(at_ms=NOW_MS, kind="action", user_id=text, text=text, node=text),
        )
    ]
    return [
        link(), hello(node=CORPUS[5], mode=CORPUS[6], version=CORPUS[7], role=CORPUS[5]), history(),
        snap(nodes=nodes, clients=clients, closed=closed), Events(seq=2, items=events),
    ]  # fmt: skip


def assert_harmless(text: str) -> None:
    assert controls_in(text) == []
    assert "owned" not in text or "␛" in text or "\ufffd" in text


async def all_is_drawn(app: MonitorApp) -> None:
    assert app.is_running and app._exception is None


# As many columns as there are; fewer, that are cut off, less often.
@pytest.mark.parametrize("size", [(200, 50), pytest.param((80, 24), marks=pytest.mark.drill)], ids=["wide", "narrow"])
async def test_no_screen_and_no_form_lets_a_control_through(dashboard: Open, size: tuple[int, int]) -> None:
    async with dashboard(*attack(), size=size) as it:
        for key in "123456":
            await it.press(key)
            assert_harmless(it.text)
            await it.press("G")
            assert_harmless(it.text)
        for keys in (("2", "g", "enter"), ("x",), ("escape", "m"), ("escape", "D"), ("escape", "question_mark"),
                     ("escape", "3", "enter"), ("exclamation_mark",), ("y",), ("e",), ("w",)):  # fmt: skip
            for key in keys:
                await it.press(key)
            assert_harmless(it.text)
        await all_is_drawn(it.app)


async def test_a_cause_a_note_and_a_first_run_are_text(dashboard: Open) -> None:
    async with dashboard() as it:
        for text in CORPUS:
            it.source.put(link(LinkState.GONE, cause=text))
            it.app.note(text, "error")
            await it.draw()
            assert_harmless(it.text)
        await all_is_drawn(it.app)


async def test_a_name_that_is_a_link_cannot_be_clicked(dashboard: Open) -> None:
    async with dashboard(*attack()) as it:
        for y in range(4, 16):
            await it.pilot.click(offset=(2, y))
            await it.draw()
            await it.press("escape")
        assert it.app.is_running and not it.app._exit
