"""Call signals (type 3): three kinds are kept, the others only pass through, and none is echoed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import Frame, Peer, RunningNode, StartNode, eventually

KEPT = ["start_call", "receive_call", "reject_call"]
PASSING: list[Any] = [
    {"messageId": "PROXY", "type": "candidate"},
    {"messageId": "PROXY", "type": "hang_up"},
    {"messageId": "PROXY"},
    {"messageId": "CURRENT_PEERS", "type": "start_call"},
    {"type": "start_call"},
    {},
]


def _signal(receive_id: str, data: Any, send_id: str = "U1", **more: Any) -> Frame:
    return {"type": 3, "send_id": send_id, "receive_id": receive_id, "av_data": json.dumps(data), **more}


async def _say_and_see(sender: Peer, content: str) -> None:
    """What came before it has been stored and delivered as well."""
    await sender.say("U2", content)
    await sender.wait_for(lambda frame: frame.get("content") == content)


@pytest.mark.parametrize("kind", KEPT)
async def test_a_kept_signal_is_stored_and_pushed_to_the_receiver_alone(node: RunningNode, kind: str) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver, node.login("U2") as desk:
        data = {"messageId": "PROXY", "type": kind, "messageData": {"sdp": "…"}}
        await sender.send(_signal("U2", data, content="not here", url="nor here", file_name="x", file_size="1KB"))
        await _say_and_see(sender, "marker")
        assert [message["content"] for message in sender.messages] == ["marker"]
        signal, marker = await receiver.wait_for_many(2)
        assert (await desk.wait_for_many(2))[0] == signal
        assert json.loads(signal["av_data"]) == data
        assert (signal["seq"], marker["seq"]) == (1, 2)
        empty = ("content", "url", "file_type", "file_name", "file_size")
        assert {signal[name] for name in empty} == {""}
        stored = await node.history("U1", "U2")
        assert [(message["type"], message.get("av_data")) for message in stored] == [(3, signal["av_data"]), (0, None)]


async def test_av_data_comes_after_kamachats_keys(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.send(_signal("U2", {"messageId": "PROXY", "type": "start_call"}))
        (signal,) = await receiver.wait_for_many(1)
        assert list(signal)[9:13] == ["file_size", "created_at", "av_data", "uuid"]


@pytest.mark.parametrize("data", PASSING)
async def test_any_other_signal_passes_through_and_is_not_stored(node: RunningNode, data: Any) -> None:
    """KamaChat defect 8: there, a signal that was not stored still had its status updated."""
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.send(_signal("U2", data))
        await _say_and_see(sender, "marker")
        signal, marker = await receiver.wait_for_many(2)
        assert (json.loads(signal["av_data"]), signal["seq"], marker["seq"]) == (data, 0, 1)
        assert [message["content"] for message in await node.history("U1", "U2")] == ["marker"]
        assert sender.messages == [marker]


async def test_a_passing_signal_does_not_wait_for_who_is_away(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        await sender.send(_signal("U2", {"messageId": "PROXY", "type": "candidate"}))
        await _say_and_see(sender, "marker")
    async with node.login("U2") as receiver:
        assert [message["content"] for message in receiver.messages] == ["marker"]


async def test_a_kept_signal_waits_for_who_is_away(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        await sender.send(_signal("U2", {"messageId": "PROXY", "type": "start_call"}))
        await _say_and_see(sender, "marker")
        await node.noted("U1", "U1_U2", 2)
    async with node.login("U2") as receiver:
        assert [message["type"] for message in receiver.messages] == [3, 0]
    async with node.login("U1") as sender:
        assert sender.messages == []


async def test_a_passing_signal_is_the_first_to_be_dropped(start_node: StartNode) -> None:
    """Its receiver does not read: at half full the signal goes, and the messages stay."""
    node = await start_node(limits={"channel_size": 10})
    async with node.login("U1") as sender, node.login("U2", frozen=True) as receiver:
        (conn,) = await eventually(lambda: node.node.registry.get("U2"))
        said = 0
        while conn.depth < 6:
            said += 1
            await sender.say("U2", 40_000 * "x")
            await sender.wait_for_many(said)
        await sender.send(_signal("U2", {"messageId": "PROXY", "type": "candidate"}))
        await _say_and_see(sender, "marker")
        assert (node.node.delivery.ephemeral_dropped, conn.counters.dropped) == (1, 1)
        receiver.thaw()
        messages = await receiver.wait_for_many(said + 1)
        assert [message["seq"] for message in messages] == list(range(1, said + 2))
