"""Whatever names and texts a node hands on: no command that watches lets any of them do something to the terminal."""

from __future__ import annotations

import asyncio
import json

import pytest
from command_line import Kama, Outcome
from injection import CORPUS, controls_in
from simulated_node import SimulatedNode
from watching_support import FakeNode, viewer

from kama.monitor_protocol import Bye, Event, MessageTrace, Node, Queue, Snapshot


@pytest.fixture(autouse=True)
def given_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_TOKEN", viewer())


def hostile(text: str) -> SimulatedNode:
    """A node with this text in all that it says."""
    node = SimulatedNode(text, epoch=text)
    node.change(version=text, troubles={"store": text, text: "x"}, queues={text: Queue(depth=1)}, mode=text)
    node.others[text + "2"] = Node(name=text + "2", epoch=text, address=text, version=text)
    node.connect(text, text, device=text, address=text, error=text, depth=99, capacity=100)
    return node


def event(text: str, at_ms: int, kind: str = "refused") -> Event:
    return Event(
        at_ms=at_ms, kind=kind, node=text, conversation=text, send_id=text, receive_id=text, user_id=text,
        connection=text, place=text, text=text, seq=1, members=2, uuid="7",
    )  # fmt: skip


def check(done: Outcome, code: int = 0, *, is_json: bool = False) -> None:
    assert done.code == code, done.err
    assert not controls_in(done.out) and not controls_in(done.err)
    if is_json:
        for line in done.out.splitlines():
            json.loads(line)


@pytest.mark.parametrize("text", CORPUS, ids=lambda text: ascii(text)[:24])
async def test_no_text_gets_past_the_snapshot(kama: Kama, text: str) -> None:
    node = hostile(text)
    shown = Snapshot(hello=node.hello(), snap=node.snap(), events=[event(text, 1)])
    async with FakeNode(snapshot=shown) as server:
        done = await asyncio.to_thread(kama, "monitor", "--once", "-s", server.url)
        as_json = await asyncio.to_thread(kama, "monitor", "--once", "-s", server.url, "--json")
    check(done)
    assert done.out.count("\n") == 13, done.out  # and none of them makes a line
    check(as_json, is_json=True)
    assert as_json.json["clients"][0]["device"] == text  # the same text, escaped


@pytest.mark.parametrize("text", CORPUS, ids=lambda text: ascii(text)[:24])
async def test_no_text_gets_past_the_tail(kama: Kama, text: str) -> None:
    node = hostile(text)
    kinds = ("accepted", "produced", "stored", "routed", "sent", "refused", "opened", "closed", "action", "alert")
    events = [event(text, node.now_ms, kind) for kind in kinds]
    async with FakeNode(node.hello(), node.snap(), node.events(*events)) as server:
        count = str(len(kinds))
        done = await asyncio.to_thread(kama, "tail", "-s", server.url, "--count", count)
        as_json = await asyncio.to_thread(kama, "tail", "-s", server.url, "--count", count, "--json")
    check(done)
    assert done.out.count("\n") == len(kinds)
    check(as_json, is_json=True)
    assert all(each["text"] == text for each in as_json.json_lines)


async def test_no_text_of_a_goodbye_gets_past_the_notes(kama: Kama) -> None:
    node, text = hostile("n1"), " ".join(CORPUS)
    async with FakeNode(node.hello(), Bye(reason="too_many_watchers", message=text)) as server:
        tailed = await asyncio.to_thread(kama, "tail", "-s", server.url, "--wait", "500ms")
        traced = await asyncio.to_thread(kama, "trace", "7", "-s", server.url)
    check(tailed, 5)
    check(traced, 1)
    assert "DROP TABLE" in tailed.err and "DROP TABLE" in traced.err


@pytest.mark.parametrize("text", CORPUS, ids=lambda text: ascii(text)[:24])
async def test_no_text_gets_past_the_trace(kama: Kama, text: str) -> None:
    node = hostile(text)
    node.others.clear()
    kinds = ("accepted", "produced", "stored", "routed", "written", "sent", "not_stored")
    told = MessageTrace(
        uuid="7",
        steps=[event(text, at, kind) for at, kind in enumerate(kinds)],
        conversation=text,
        send_id=text,
        receive_id=text,
        status=0,
    )
    async with FakeNode(node.hello(), node.snap(), trace=told) as server:
        done = await asyncio.to_thread(kama, "trace", "7", "-s", server.url)
        as_json = await asyncio.to_thread(kama, "trace", "7", "-s", server.url, "--json")
    check(done)
    assert done.out.count("\n") == 2 + len(kinds)
    check(as_json, is_json=True)
    assert as_json.json["send_id"] == text
