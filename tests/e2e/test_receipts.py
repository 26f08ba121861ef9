"""What a sender is told: ack once a message is safe, then sent, delivered and read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import Frame, Peer, RunningNode, bearer, eventually


def _status(status: str, user_id: str = "U2", seq: int = 0) -> Callable[[Frame], bool]:
    """A status frame; of that seq, unless it is 0."""
    return lambda frame: (
        frame.get("type") == "status"
        and frame["status"] == status
        and frame["user_id"] == user_id
        and seq in (0, frame["seq"])
    )


async def _settled(node: RunningNode) -> None:
    """Whatever was marked until now is committed and told."""
    await eventually(lambda: node.node.status.depth == 0)


async def _receipt(peer: Peer, kind: str, uuid: str) -> None:
    await peer.send({"type": kind, "uuid": uuid})
    await peer.ping()


# --- acks ----------------------------------------------------------------------------------------------


async def test_an_ack_comes_once_the_message_is_stored(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        await sender.say("U2", client_msg_id="m1")
        ack = await sender.wait_for(lambda frame: frame["type"] == "ack")
        (stored,) = await node.history("U1", "U2")
        assert ack == {"type": "ack", "client_msg_id": "m1", "uuid": stored["uuid"], "status": "accepted"}


async def test_an_ack_goes_to_the_sending_connection_only(node: RunningNode) -> None:
    async with node.login("U1") as phone, node.login("U1") as desk, node.login("U2") as other:
        await phone.say("U2", client_msg_id="m1")
        await phone.wait_for(lambda frame: frame["type"] == "ack")
        for peer in (desk, other):
            await peer.wait_for_many(1)
            await peer.ping()
            assert peer.of_type("ack") == []


async def test_a_client_that_knows_nothing_of_ours_is_told_nothing_new(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.say("U2", "as KamaChat's clients do")
        (message,) = await receiver.wait_for_many(1)
        await _receipt(receiver, "read", message["uuid"])
        await eventually(lambda: not node.node.status.depth)
        await sender.say("U2", "with an id", client_msg_id="m1")
        await sender.wait_for(_status("sent"))
        assert [(ack["client_msg_id"]) for ack in sender.of_type("ack")] == ["m1"]
        assert {frame["seq"] for frame in sender.of_type("status")} == {2}


# --- sent ----------------------------------------------------------------------------------------------


async def test_the_sender_is_told_that_a_message_was_sent(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2"):
        await sender.say("U2", client_msg_id="m1")
        status = await sender.wait_for(lambda frame: frame["type"] == "status")
        assert list(status) == ["type", "conversation", "seq", "status", "user_id", "at"]
        (message,) = await node.history("U1", "U2")
        assert message["status"] == 1
        expected = {"type": "status", "conversation": "U1_U2", "seq": 1, "status": "sent", "user_id": "U2"}
        assert {**status, "at": 0} == {**expected, "at": 0}
        assert 0 <= status["at"] - message["created_ms"] < 10_000


async def test_the_senders_own_echo_makes_nothing_sent(node: RunningNode) -> None:
    """KamaChat defect 8: there, it did."""
    async with node.login("U1") as sender, node.login("U1"):
        await sender.say("U2", client_msg_id="m1")
        await sender.wait_for_many(1)
        await sender.ping()
        await _settled(node)
        assert [message["status"] for message in await node.history("U1", "U2")] == [0]
        async with node.login("U2"):
            await sender.wait_for(_status("sent"))
        assert [message["status"] for message in await node.history("U1", "U2")] == [1]
        assert len(sender.of_type("status")) == 1


async def test_every_connection_of_the_sender_is_told(node: RunningNode) -> None:
    async with node.login("U1") as phone, node.login("U1") as desk, node.login("U2"):
        await phone.say("U2", client_msg_id="m1")
        for peer in (phone, desk):
            await peer.wait_for(_status("sent"))


# --- delivered and read --------------------------------------------------------------------------------


async def test_a_message_goes_from_sent_to_delivered_to_read(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.say("U2", client_msg_id="m1")
        (message,) = await receiver.wait_for_many(1)
        seen = []
        for name, receipt in (("sent", ""), ("delivered", "delivered"), ("read", "read")):
            if receipt:
                await receiver.send({"type": receipt, "uuid": message["uuid"]})
            await sender.wait_for(_status(name))
            (stored,) = await node.history("U1", "U2")
            seen.append(stored["status"])
        assert seen == [1, 2, 3]
        assert [frame["status"] for frame in sender.of_type("status")] == ["sent", "delivered", "read"]


async def test_a_receipt_covers_all_earlier_messages_with_one_frame(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        for number in range(20):
            await sender.say("U2", client_msg_id=f"m{number}")
        await sender.wait_for_many(20)
        async with node.login("U2") as receiver:
            await receiver.send({"type": "read", "uuid": receiver.messages[-1]["uuid"]})
            status = await sender.wait_for(_status("read"))
        assert status["seq"] == 20
        assert [message["status"] for message in await node.history("U1", "U2")] == 20 * [3]
        await sender.ping()
        assert len([frame for frame in sender.frames if _status("read")(frame)]) == 1


async def test_a_receipt_covers_nothing_later(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver:
        for number in range(4):
            await sender.say("U2", client_msg_id=f"m{number}")
        messages = await receiver.wait_for_many(4)
        await sender.wait_for(_status("sent", seq=4))
        await receiver.send({"type": "read", "uuid": messages[1]["uuid"]})
        await sender.wait_for(_status("read", seq=2))
        assert [message["status"] for message in await node.history("U1", "U2")] == [3, 3, 1, 1]


async def test_a_status_never_goes_back(node: RunningNode) -> None:
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.say("U2", client_msg_id="m1")
        (message,) = await receiver.wait_for_many(1)
        await _receipt(receiver, "read", message["uuid"])
        await sender.wait_for(_status("read"))
        for kind in ("delivered", "read"):
            await _receipt(receiver, kind, message["uuid"])
        await sender.say("U2", client_msg_id="m2")
        await sender.wait_for(_status("sent", seq=2))
        assert [message["status"] for message in await node.history("U1", "U2")] == [3, 1]
        assert [frame for frame in sender.of_type("status") if frame["status"] == "delivered"] == []


async def test_a_receipt_of_ones_own_message_changes_nothing(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        await sender.say("U2", client_msg_id="m1")
        (message,) = await sender.wait_for_many(1)
        await _receipt(sender, "read", message["uuid"])
        await _settled(node)
        assert [message["status"] for message in await node.history("U1", "U2")] == [0]
        assert sender.of_type("error") == sender.of_type("status") == []


async def test_in_a_group_the_sender_is_told_of_each_member(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2", "U3")
    async with node.login("U1") as sender, node.login("U2") as two, node.login("U3") as three:
        await sender.say("G1", client_msg_id="m1")
        (message,) = await two.wait_for_many(1)
        await three.wait_for_many(1)
        await two.send({"type": "delivered", "uuid": message["uuid"]})
        status = await sender.wait_for(_status("delivered", "U2"))
        assert status["conversation"] == "G1"
        await three.send({"type": "read", "uuid": message["uuid"]})
        await sender.wait_for(_status("read", "U3"))


# --- receipts that are none ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["delivered", "read"])
async def test_a_receipt_for_a_message_of_others_is_forbidden(node: RunningNode, kind: str) -> None:
    async with node.login("U1") as sender, node.login("U3") as stranger:
        await sender.say("U2", client_msg_id="m1")
        (message,) = await sender.wait_for_many(1)
        error = await stranger.error_to({"type": kind, "uuid": message["uuid"]})
        assert (error["code"], error["field"]) == (1007, "uuid")
        await _settled(node)
        assert [message["status"] for message in await node.history("U1", "U2")] == [0]


async def test_a_receipt_for_a_group_one_has_left_is_forbidden(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2")
    async with node.login("U1") as sender, node.login("U2") as member:
        await sender.say("G1", client_msg_id="m1")
        (message,) = await member.wait_for_many(1)
        body = {"remove": ["U2"]}
        await node.request("POST", "/admin/groups/G1/members", json=body, headers=bearer("Uadmin", "admin"))
        assert (await member.error_to({"type": "read", "uuid": message["uuid"]}))["code"] == 1007


@pytest.mark.parametrize("uuid", ["1", "", "x", "-1", "1.5", "٣", 19 * "9", 20 * "9", 5000 * "9"])
async def test_a_receipt_for_no_message_is_not_found(node: RunningNode, uuid: str) -> None:
    async with node.login("U1") as peer:
        error = await peer.error_to({"type": "read", "uuid": uuid})
        assert (error["code"], error["field"]) == (1008, "uuid")
        assert len(error["message"]) < 100
        await peer.ping()


async def test_the_welcome_says_what_the_node_allows(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        welcome: dict[str, Any] = peer.frames[0]
        assert (welcome["type"], welcome["event"], welcome["protocol"]) == ("system", "welcome", 1)
        assert welcome["node"] == f"127.0.0.1:{node.port}"
        assert (welcome["limits"]["message_size"], welcome["limits"]["file_max_size"]) == (65_536, 50_000)
        assert isinstance(welcome["content"], str)
