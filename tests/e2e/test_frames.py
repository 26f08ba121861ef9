"""Frames that are none: each is answered with what is wrong, stores nothing, and ends no connection."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from support import RunningNode, StartNode, text_message
from websockets.exceptions import ConnectionClosed


def _message(**changes: Any) -> dict[str, Any]:
    return {**text_message("U1", "U2"), **changes}


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in _message().items() if key != name}


# The frame, the field that the error names, and what it says was expected and came.
BAD_FRAMES: dict[str, tuple[Any, str | None, str, str]] = {
    "not JSON": ("hello", None, "one JSON object in UTF-8", ""),
    "JSON cut off": ('{"type":0,"send_id":"U1"', None, "one JSON object in UTF-8", ""),
    "two objects": ('{"type":"ping"}{"type":"ping"}', None, "one JSON object in UTF-8", ""),
    "nothing": ("", None, "one JSON object in UTF-8", ""),
    "not UTF-8 in a binary frame": (b'{"type":0,"content":"\xff"}', None, "one JSON object in UTF-8", ""),
    "an array": ([_message()], None, "one JSON object in UTF-8", "got `array`"),
    "a string": ('"hello"', None, "one JSON object in UTF-8", "got `str`"),
    "a number": ("7", None, "one JSON object in UTF-8", "got `int`"),
    "null": ("null", None, "one JSON object in UTF-8", "got `null`"),
    "nested too deep": ("[" * 20_000, None, "one JSON object in UTF-8", ""),
    "no type": (_without("type"), "type", "expected the field type", "none"),
    "no send_id": (_without("send_id"), "send_id", "expected the field send_id", "none"),
    "no receive_id": (_without("receive_id"), "receive_id", "expected the field receive_id", "none"),
    "type null": (_message(type=None), "type", "expected int", "null"),
    "type fraction": (_message(type=0.5), "type", "expected int", "the number 0.5"),
    "type true": (_message(type=True), "type", "expected int", "true"),
    "type too high": (_message(type=4), "type", "expected int <= 3", "the number 4"),
    "type negative": (_message(type=-1), "type", "expected int >= 0", "the number -1"),
    "type huge": (_message(type=10**30), "type", "expected int <= 3", "a very large number"),
    "unknown control type": ({"type": "shout"}, "type", "type 0, 1, 2 or 3 or one of auth, delivered", "'shout'"),
    "type as digits": (_message(type="0"), "type", "type 0, 1, 2 or 3 or one of auth, delivered", "'0'"),
    "content a number": (_message(content=5), "content", "expected str", "the number 5"),
    "content null": (_message(content=None), "content", "expected str", "null"),
    "send_id a list": (_message(send_id=["U1"]), "send_id", "expected str", "an array of 1"),
    "empty send_id": (_message(send_id=""), "send_id", "expected str matching regex", "''"),
    "empty receive_id": (_message(receive_id=""), "receive_id", "expected str matching regex", "''"),
    "receive_id of another kind": (_message(receive_id="X2"), "receive_id", "expected str matching regex", "'X2'"),
    "receive_id a letter": (_message(receive_id="U"), "receive_id", "expected str matching regex", "'U'"),
    "receive_id too long": (_message(receive_id="U" + 20 * "2"), "receive_id", "expected str matching regex", "'U222"),
    "receive_id with a space": (_message(receive_id="U 2"), "receive_id", "expected str matching regex", "'U 2'"),
    "receive_id with a line end": (_message(receive_id="U2\n"), "receive_id", "expected str matching regex", "'U2"),
    "send_name too long": (_message(send_name=21 * "x"), "send_name", "length <= 20", 21 * "x"),
    "session_id too long": (_message(session_id=21 * "x"), "session_id", "length <= 20", 21 * "x"),
    "send_avatar too long": (_message(send_avatar=256 * "x"), "send_avatar", "length <= 255", "256 characters"),
    "url too long": (_message(url=256 * "x"), "url", "length <= 255", "256 characters"),
    "file_name too long": (_message(file_name=51 * "x"), "file_name", "length <= 50", "51 characters"),
    "file_type too long": (_message(file_type=51 * "x"), "file_type", "length <= 50", "51 characters"),
    "file_size too long": (_message(file_size=21 * "x"), "file_size", "length <= 20", 21 * "x"),
    "client_msg_id too long": (_message(client_msg_id=65 * "x"), "client_msg_id", "length <= 64", "65 characters"),
    "client_msg_id empty": (_message(client_msg_id=""), "client_msg_id", "length >= 1", "''"),
    "content too long": (_message(content=50_001 * "x"), "content", "at most 50000 characters", "50001"),
    "av_data too long": (_message(content="", av_data=50_001 * "x"), "av_data", "at most 50000 characters", "50001"),
    "both too long": (_message(content=30_000 * "x", av_data=20_001 * "x"), "content", "at most 50000", "50001"),
    "NUL in content": (_message(content="a\0b"), "content", "text without U+0000", "got one"),
    "NUL in send_name": (_message(send_name="\0"), "send_name", "text without U+0000", "got one"),
    "a call signal that is no JSON": (_message(type=3, av_data="hello"), "av_data", "a JSON object", "'hello'"),
    "a call signal without av_data": (_message(type=3), "av_data", "a JSON object", "''"),
    "a call signal of an array": (_message(type=3, av_data="[]"), "av_data", "a JSON object", "'[]'"),
    "a call signal nested too deep": (_message(type=3, av_data="[" * 20_000), "av_data", "a JSON object", "20000"),
    "auth without a token": ({"type": "auth"}, "token", "expected the field token", "none"),
    "receipt without a uuid": ({"type": "read"}, "uuid", "expected the field uuid", "none"),
    "receipt of a number": ({"type": "delivered", "uuid": 7}, "uuid", "expected str", "the number 7"),
    "pull without a conversation": ({"type": "pull"}, "conversation", "expected the field conversation", "none"),
    "pull of too much": ({"type": "pull", "conversation": "U1_U2", "limit": 201}, "limit", "int <= 200", "201"),
    "pull from below zero": ({"type": "pull", "conversation": "U1_U2", "after_seq": -1}, "after_seq", ">= 0", "-1"),
    "pull in the wrong order": ({"type": "pull", "conversation": "U2_U1"}, "conversation", "U1_U2", "'U2_U1'"),
    "pull with the other sign": ({"type": "pull", "conversation": "U1:U2"}, "conversation", "U1_U2", "'U1:U2'"),
    "pull of what is no conversation": ({"type": "pull", "conversation": "x"}, "conversation", "a conversation", "'x'"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_is_answered_with_what_is_wrong_and_ends_nothing(node: RunningNode, name: str) -> None:
    """KamaChat defect 6: there, an empty receive_id was enough to end the process for everybody."""
    frame, field, expected, came = BAD_FRAMES[name]
    async with node.login("U1") as peer, node.login("U2") as other:
        error = await peer.error_to(frame)
        assert (error["code"], error.get("field")) == (1001, field)
        assert expected in error["message"] and came in error["message"]
        assert len(error["message"]) < 400
        for each in (peer, other):
            await each.ping()
        assert peer.messages == other.messages == []
        assert await node.history("U1", "U2") == []
        assert node.node.chat.counters.stored == 0


async def test_an_error_gives_the_client_msg_id_back(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        for bad in ({"content": 5}, {"send_id": "U9"}, {"receive_id": "Gnone"}, {"content": 50_001 * "x"}):
            error = await peer.error_to(_message(client_msg_id="m1", **bad))
            assert error["client_msg_id"] == "m1"


async def test_an_error_does_not_repeat_a_long_text(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        assert 30 * "x" not in (await peer.error_to(_message(url=300 * "x")))["message"]


# --- rights --------------------------------------------------------------------------------------------


async def test_nobody_writes_in_another_users_name(node: RunningNode) -> None:
    """KamaChat defect 20: there, send_id was trusted."""
    async with node.login("U1") as peer, node.login("U2") as other:
        error = await peer.error_to(_message(send_id="U3"))
        assert (error["code"], error["field"]) == (1007, "send_id")
        assert error["message"] == "expected send_id U1, got U3"
        await peer.say("U2", "marker")
        assert [message["content"] for message in await other.wait_for_many(1)] == ["marker"]
        assert await node.history("U3", "U2") == []


async def test_a_group_that_does_not_exist_is_named(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        error = await peer.error_to(_message(receive_id="Gnone"))
        assert (error["code"], error["field"], error["message"]) == (1003, "receive_id", "there is no group Gnone")


async def test_who_is_not_in_a_group_cannot_write_to_it(node: RunningNode) -> None:
    """KamaChat defect 22: there, nobody asked whether the sender was a member."""
    await node.create_group("G1", "U2")
    async with node.login("U1") as peer, node.login("U2") as owner:
        error = await peer.error_to(_message(receive_id="G1"))
        assert (error["code"], error["field"]) == (1007, "receive_id")
        await owner.say("G1", "marker")
        assert [message["content"] for message in await owner.wait_for_many(1)] == ["marker"]


async def test_a_call_signal_to_a_group_is_refused(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2")
    async with node.login("U1") as peer, node.login("U2") as other:
        error = await peer.error_to(_message(receive_id="G1", type=3, av_data='{"messageId":"PROXY"}'))
        assert (error["code"], error["field"]) == (1001, "receive_id")
        await peer.say("G1", "marker")
        assert [message["content"] for message in await other.wait_for_many(1)] == ["marker"]


# --- how much ------------------------------------------------------------------------------------------


async def test_who_sends_too_fast_is_told_when_the_next_one_may_come(start_node: StartNode) -> None:
    """KamaChat defect 25: there, nothing limited how much one user sends."""
    node = await start_node(limits={"messages_per_second": 10, "burst": 2})
    async with node.login("U1") as peer, node.login("U2") as other:
        await peer.say("U2", "1")
        await peer.say("U2", "2")
        error = await peer.error_to(_message(content="3"))
        assert error["code"] == 1009
        assert 0 < error["retry_after_ms"] <= 100
        await asyncio.sleep(error["retry_after_ms"] / 1000)
        await peer.say("U2", "4")
        assert [message["content"] for message in await other.wait_for_many(3)] == ["1", "2", "4"]


async def test_the_limit_is_the_users_and_not_the_connections(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0.01, "burst": 1})
    async with node.login("U1") as phone, node.login("U1") as desk, node.login("U2") as other:
        await phone.say("U2")
        await phone.wait_for_many(1)
        assert (await desk.error_to(_message()))["code"] == 1009
        await other.say("U1", "others are not concerned")
        await desk.wait_for_many(2)


async def test_a_flood_of_refused_frames_closes_with_4009(node: RunningNode) -> None:
    async with node.login("U1") as peer, node.login("U2") as other:
        for number in range(600):
            await peer.send("nonsense")
            if number % 50 == 0:
                await peer.ping()
        assert peer.closed is None
        with suppress(ConnectionClosed):
            for _ in range(10_000):
                await peer.send("nonsense")
        assert await peer.wait_for_close() == (4009, "too many refused frames")
        await other.ping()


async def test_what_the_node_cannot_take_is_no_abuse(node: RunningNode) -> None:
    """A flood that meets a shutdown has to come back: 4009 says that it should not."""
    async with node.login("U1") as peer:
        await node.node.broker.close()
        for number in range(1000):
            await peer.say("U2", client_msg_id=f"{number}")
            if number % 50 == 0:
                await peer.ping()
        refused = await peer.wait_for_many(1000, lambda frame: frame.get("type") == "error")
        assert {error["code"] for error in refused} == {1005}
        await peer.ping()


# --- what is fine --------------------------------------------------------------------------------------


async def test_the_longest_of_everything_is_fine(node: RunningNode) -> None:
    longest = _message(
        type=2,
        session_id=20 * "s",
        content=49_000 * "c",
        av_data=1_000 * "a",
        url=255 * "u",
        send_name=20 * "ü",
        send_avatar=255 * "v",
        file_name=50 * "字",
        file_type=50 * "t",
        file_size=20 * "1",
        client_msg_id=64 * "m",
    )
    async with node.login("U1") as peer:
        await peer.send(longest)
        (message,) = await peer.wait_for_many(1)
        for name in ("content", "url", "send_name", "send_avatar", "file_name", "file_type", "file_size"):
            assert message[name] == longest[name]


async def test_a_binary_frame_is_as_good_as_a_text_frame(node: RunningNode) -> None:
    async with node.login("U1") as peer, node.login("U2") as other:
        await peer.send(json.dumps(_message(content="als Bytes: ü"), ensure_ascii=False).encode())
        assert (await other.wait_for_many(1))[0]["content"] == "als Bytes: ü"


async def test_keys_that_are_not_ours_are_ignored(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        await peer.send(_message(colour="red", uuid="1", seq=99, status=3, created_at="1970-01-01 00:00:00"))
        (message,) = await peer.wait_for_many(1)
        assert "colour" not in message
        assert (message["seq"], message["status"]) == (1, 0)
        assert message["uuid"] != "1" and not message["created_at"].startswith("1970")


async def test_a_ping_is_answered_with_a_pong(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        await peer.send({"type": "ping"})
        assert await peer.wait_for(lambda frame: frame["type"] == "pong") == {"type": "pong"}
