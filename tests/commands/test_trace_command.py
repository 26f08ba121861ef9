"""`kama trace`: the life of a message from real nodes, in words and as JSON."""

from __future__ import annotations

import asyncio

import pytest
from command_line import Kama, Outcome
from simulated_node import SimulatedNode
from support import NodeProcess, Peer, RunningNode, eventually
from watching_support import FakeNode, viewer

from kama.errors import ExitCode
from kama.monitor_protocol import Event, MessageTrace, Node


@pytest.fixture(autouse=True)
def given_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_TOKEN", viewer())


async def trace(kama: Kama, *arguments: str) -> Outcome:
    """Beside the event loop of the node."""
    return await asyncio.to_thread(kama, "trace", *arguments)


async def sent(node: NodeProcess, one: str, two: str) -> str:
    """The uuid of a message that its receiver has."""
    async with Peer(node.url, one) as sender, Peer(node.url, two):
        await sender.say(two, "hello", client_msg_id="1")
        ack = await sender.wait_for(lambda frame: frame.get("type") == "ack")
        await sender.wait_for(lambda frame: frame.get("type") == "status")
    uuid: str = ack["uuid"]
    return uuid


async def test_it_tells_each_step_and_the_whole_in_a_sentence(kama: Kama, live: NodeProcess) -> None:
    uuid = await sent(live, "U1", "U2")
    done = await trace(kama, uuid, "-s", live.url)
    assert (done.code, done.err) == (0, "")
    head, sentence, *steps = done.out.splitlines()
    assert head == f"message {uuid}  U1 to U2  seq 1  sent"
    assert sentence.startswith("sent to 1 of 1 in ")
    for kind in ("accepted", "stored", "routed", "written", "sent"):
        assert any(kind in step for step in steps), kind


async def test_json_has_the_steps_with_their_times(kama: Kama, live: NodeProcess) -> None:
    uuid = await sent(live, "U3", "U4")
    found = (await trace(kama, uuid, "-s", live.url, "--json")).json
    assert (found["uuid"], found["status"], found["conversation"], found["missing"]) == (uuid, "sent", "U3_U4", [])
    kinds = [step["kind"] for step in found["steps"]]
    assert kinds[0] == "accepted" and kinds[-1] == "sent" and found["steps"][0]["delta_ms"] is None
    assert all(step["delta_ms"] >= 0 for step in found["steps"][1:])


async def test_a_message_that_nobody_takes_says_what_is_missing(kama: Kama, node: RunningNode) -> None:
    async with node.login("U1") as one:
        await one.say("U2", "hello")
        (echo,) = await one.wait_for_many(1)
        done = await trace(kama, echo["uuid"], "-s", node.url)
    assert "stored, and sent to nobody yet" in done.out
    assert done.out.splitlines()[-1].startswith("no receiver has taken it yet: 1 connection was offered it")


async def test_what_never_was_is_exit_code_1(kama: Kama, live: NodeProcess) -> None:
    done = await trace(kama, "99", "-s", live.url)
    assert (done.code, done.out) == (ExitCode.FAILED, "")
    assert "no node knows of message 99" in done.err
    assert (await trace(kama, "99", "-s", live.url, "--json")).error["code"] == "failed"


async def test_the_other_nodes_of_the_cluster_are_asked_too_and_one_that_does_not_answer_is_told(kama: Kama) -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    here = MessageTrace(uuid="7", steps=[Event(at_ms=1, kind="accepted", node="n1", uuid="7")], status=1)
    there = MessageTrace(uuid="7", steps=[Event(at_ms=5, kind="written", node="n2", uuid="7", user_id="U2")], status=1)
    async with FakeNode(two.hello(), two.snap(), trace=there) as second:
        one.others["n2"] = Node(name="n2", epoch="e", address=second.address)
        one.others["n3"] = Node(name="n3", epoch="e", address="127.0.0.1:1")
        async with FakeNode(one.hello(), one.snap(), trace=here) as first:
            done = await trace(kama, "7", "-s", first.url, "--json")
    assert [(step["node"], step["kind"]) for step in done.json["steps"]] == [("n1", "accepted"), ("n2", "written")]
    assert done.err.startswith("kama: http://127.0.0.1:1 was not asked: no kama node answers")


async def test_a_node_that_is_named_has_to_answer(kama: Kama, node: RunningNode) -> None:
    done = await trace(kama, "7", "-s", node.url, "-s", "http://127.0.0.1:1")
    assert done.code == ExitCode.CANNOT_CONNECT


async def test_a_node_that_has_as_many_watchers_as_it_takes_says_so(kama: Kama, node: RunningNode) -> None:
    from contextlib import AsyncExitStack

    from watching_support import Watching, live_source

    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(Watching(live_source(node.url)))
        await eventually(lambda: len(node.node.watchers) == 8)
        done = await trace(kama, "7", "-s", node.url)
    assert done.code == ExitCode.FAILED and "8" in done.err


@pytest.mark.parametrize("given", ["x", "-1", "12345678901234567890", "１"])
def test_what_is_no_uuid_is_a_usage_error(kama: Kama, given: str) -> None:
    done = kama("trace", "--", given)
    assert done.code == ExitCode.USAGE and "expected a message's uuid, 1 to 19 digits" in done.err
