"""What people came for: messages between users, devices and groups, over real sockets."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from support import Frame, Peer, RunningNode, StartNode, bearer, eventually, text_message

# KamaChat's keys in KamaChat's order, then ours.
KEYS = [
    "send_id", "send_name", "send_avatar", "receive_id", "type", "content", "url", "file_type", "file_name",
    "file_size", "created_at", "uuid", "session_id", "seq", "status", "created_ms",
]  # fmt: skip


async def test_the_seeds_text_and_file_arrive_and_echo_in_order(node: RunningNode) -> None:
    async with node.login("U123456") as sender, node.login("U654321") as receiver:
        await sender.say("U654321", "hello", session_id="S1", send_name="Ann")
        file = {"url": "http://files/a.png", "file_name": "a.png", "file_size": "10KB", "file_type": "image/png"}
        await sender.send({"type": 2, "send_id": "U123456", "receive_id": "U654321", **file})
        for peer in (sender, receiver):
            text, attachment = await peer.wait_for_many(2)
            assert (text["type"], text["content"], text["send_name"], text["seq"]) == (0, "hello", "Ann", 1)
            assert {name: attachment[name] for name in file} == file
            assert (attachment["type"], attachment["seq"]) == (2, 2)
            assert text["uuid"] < attachment["uuid"]


async def test_every_device_of_both_users_gets_a_message_once(start_node: StartNode) -> None:
    node = await start_node()
    async with (
        node.login("U1", device="phone") as phone,
        node.login("U1", device="desk") as desk,
        node.login("U2", device="phone") as other,
    ):
        await phone.say("U2", "to one")
        await other.say("U1", "and back")
        for peer in (phone, desk, other):
            await peer.wait_for_many(2)
            assert [message["content"] for message in peer.messages] == ["to one", "and back"]


# --- what a message looks like -------------------------------------------------------------------------

_FULL: dict[str, Any] = {
    "session_id": "S1",
    "content": "what it says",
    "url": "http://files/a.ogg",
    "send_name": "Ann",
    "send_avatar": "http://files/ann.png",
    "file_size": "10KB",
    "file_type": "audio/ogg",
    "file_name": "a.ogg",
}


async def _echo_of(node: RunningNode, message: Frame) -> Frame:
    async with node.login(message["send_id"]) as peer:
        await peer.send(message)
        return (await peer.wait_for_many(1))[0]


async def test_a_text_has_no_file(node: RunningNode) -> None:
    push = await _echo_of(node, {**_FULL, "type": 0, "send_id": "U1", "receive_id": "U2"})
    assert list(push) == KEYS
    expected = {**_FULL, "file_size": "0B", "file_type": "", "file_name": ""}
    assert {name: push[name] for name in _FULL} == expected
    assert (push["send_id"], push["receive_id"], push["type"], push["seq"], push["status"]) == ("U1", "U2", 0, 1, 0)


@pytest.mark.parametrize("kind", [1, 2])
async def test_a_voice_message_and_a_file_keep_their_file(node: RunningNode, kind: int) -> None:
    push = await _echo_of(node, {**_FULL, "type": kind, "send_id": "U1", "receive_id": "U2"})
    assert list(push) == KEYS
    assert {name: push[name] for name in _FULL} == _FULL


async def test_what_was_not_said_is_an_empty_string(node: RunningNode) -> None:
    push = await _echo_of(node, {"type": 2, "send_id": "U1", "receive_id": "U2"})
    assert {push[name] for name in _FULL} == {""}


async def test_the_client_msg_id_comes_back_with_the_message_that_had_one(node: RunningNode) -> None:
    push = await _echo_of(node, text_message("U1", "U2", client_msg_id="m1"))
    assert list(push) == [*KEYS[:-1], "client_msg_id", "created_ms"]
    assert push["client_msg_id"] == "m1"


async def test_the_uuid_is_a_string_that_javascript_can_hold(node: RunningNode) -> None:
    push = await _echo_of(node, text_message("U1", "U2"))
    assert isinstance(push["uuid"], str) and int(push["uuid"]) > 2**53


async def test_the_time_is_the_nodes_local_time(node: RunningNode) -> None:
    before = datetime.now()
    push = await _echo_of(node, text_message("U1", "U2"))
    at = datetime.fromtimestamp(push["created_ms"] / 1000)
    assert push["created_at"] == at.strftime("%Y-%m-%d %H:%M:%S")
    assert abs((at - before).total_seconds()) < 5


async def test_everybody_gets_the_same_frame(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.say("U2", "für 字 \U0001f600 \\u0041 \u2028")
        assert (await sender.wait_for_many(1)) == (await receiver.wait_for_many(1))
        assert receiver.messages[0]["content"] == "für 字 \U0001f600 \\u0041 \u2028"
        await eventually(lambda: node.node.status.depth == 0)
        assert await node.history("U1", "U2") == [{**receiver.messages[0], "status": 1}]


# --- to a user -----------------------------------------------------------------------------------------


async def test_a_message_to_oneself_comes_once(node: RunningNode) -> None:
    """KamaChat defect 13: there, it came twice."""
    async with node.login("U1", device="phone") as phone, node.login("U1", device="desk") as desk:
        await phone.say("U1", "note")
        await phone.say("U2", "marker")
        for peer in (phone, desk):
            assert [message["content"] for message in await peer.wait_for_many(2)] == ["note", "marker"]
        assert [message["content"] for message in await node.history("U1", "U1")] == ["note"]


async def test_nobody_else_gets_a_message(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U3") as stranger:
        await sender.say("U2", "not for U3")
        await sender.say("U3", "marker")
        assert [message["content"] for message in await stranger.wait_for_many(1)] == ["marker"]


async def test_a_message_waits_for_a_user_that_has_never_been_here(node: RunningNode) -> None:
    """KamaChat defect 12: there, who was away never got it."""
    async with node.login("U1") as sender:
        for number in range(3):
            await sender.say("U2", str(number))
        await sender.wait_for_many(3)
    async with node.login("U2") as receiver:
        assert [message["content"] for message in receiver.messages] == ["0", "1", "2"]
        caught_up = receiver.frames[-1]
        assert (caught_up["event"], caught_up["complete"]) == ("caught_up", True)


async def test_what_was_pushed_once_is_not_pushed_again(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        await sender.say("U2", "first")
        async with node.login("U2") as receiver:
            await receiver.wait_for_many(1)
            await node.noted("U2", "U1_U2", 1)
        await sender.say("U2", "second")
        await sender.wait_for_many(2)
    async with node.login("U2") as receiver:
        assert [message["content"] for message in receiver.messages] == ["second"]


# --- to a group ----------------------------------------------------------------------------------------


async def test_each_connection_of_each_member_gets_a_group_message_once(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2", "U3")
    async with (
        node.login("U1", device="phone") as sender,
        node.login("U1", device="desk") as desk,
        node.login("U2") as member,
        node.login("U3") as other_member,
        node.login("U4") as stranger,
    ):
        await sender.say("G1", "to all")
        await sender.say("G1", "marker")
        for peer in (sender, desk, member, other_member):
            messages = await peer.wait_for_many(2)
            assert [(message["content"], message["seq"]) for message in messages] == [("to all", 1), ("marker", 2)]
        await stranger.ping()
        assert stranger.messages == []


async def test_a_member_that_was_away_catches_up_with_the_group(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2")
    async with node.login("U1") as sender:
        await sender.say("G1", "while you were away")
        await sender.wait_for_many(1)
    async with node.login("U2") as member:
        assert [message["content"] for message in member.messages] == ["while you were away"]


async def test_all_members_see_the_same_order(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2", "U3")
    async with node.login("U1") as one, node.login("U2") as two, node.login("U3") as three:

        async def talk(peer: Peer) -> None:
            for number in range(30):
                await peer.say("G1", f"{peer.user_id} {number}")

        await asyncio.gather(*map(talk, (one, two, three)))
        for peer in (one, two, three):
            assert [message["seq"] for message in await peer.wait_for_many(90)] == list(range(1, 91))
        assert one.messages == two.messages == three.messages


# --- over HTTP -----------------------------------------------------------------------------------------


async def _post(node: RunningNode, message: Any, user_id: str = "U1") -> tuple[int, Frame]:
    answer = await node.request("POST", "/message/send", json=message, headers=bearer(user_id))
    return answer.status_code, answer.json()


async def test_a_message_posted_over_http_is_stored_pushed_and_answered(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver:
        status, body = await _post(node, text_message("U1", "U2", "posted"))
        assert (status, body["code"]) == (200, 1000)
        (push,) = await receiver.wait_for_many(1)
        assert await sender.wait_for_many(1) == [push]
        assert body["data"] == {"uuid": push["uuid"], "conversation": "U1_U2", "seq": 1, "status": "accepted"}


async def test_a_message_posted_again_is_the_same_message(node: RunningNode) -> None:
    first = await _post(node, text_message("U1", "U2", client_msg_id="m1"))
    assert first[1]["data"]["client_msg_id"] == "m1"
    assert await _post(node, text_message("U1", "U2", client_msg_id="m1")) == first
    assert len(await node.history("U1", "U2")) == 1


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"content": 5}, 400, 1001),
        ({"type": "read", "uuid": "1"}, 400, 1001),
        ({"send_id": "U9"}, 403, 1007),
        ({"receive_id": "Gnone"}, 404, 1003),
        ({"content": 50_001 * "x"}, 400, 1001),
        ({"type": 3, "av_data": "x"}, 400, 1001),
    ],
)
async def test_a_bad_message_over_http_is_refused_as_on_the_socket(
    node: RunningNode, changes: Frame, status: int, code: int
) -> None:
    got, body = await _post(node, {**text_message("U1", "U2"), **changes})
    assert (got, body["code"], body["data"]) == (status, code, None)
    assert node.node.chat.counters.accepted == 0


async def test_the_rate_limit_holds_over_http_and_sockets_together(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0.1, "burst": 1})
    async with node.login("U1") as peer:
        await peer.say("U2")
        await peer.wait_for_many(1)
        answer = await node.request("POST", "/message/send", json=text_message("U1", "U2"), headers=bearer("U1"))
        assert (answer.status_code, answer.json()["code"]) == (429, 1009)
        assert 0 < int(answer.headers["Retry-After"]) <= 10
