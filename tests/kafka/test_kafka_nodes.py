"""Three nodes over Kafka are one system: who is logged in to which of them is nothing that a user notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from kafka_cluster import (
    Cluster,
    act,
    create_group,
    history,
    known_nodes,
    login,
    name_of,
    new_group,
    new_user,
    request,
)
from support import Frame, bearer, text_message

pytestmark = pytest.mark.kafka


def _status(status: str, user_id: str) -> Callable[[Frame], bool]:
    return lambda frame: frame.get("type") == "status" and frame["status"] == status and frame["user_id"] == user_id


async def test_a_text_and_a_file_reach_a_user_on_another_node_in_order(trio: Cluster) -> None:
    one, two, _ = trio.nodes
    me, you = new_user(), new_user()
    async with login(one, me) as sender, login(two, you) as receiver:
        await sender.say(you, "Hello, how are you?", send_name="John", client_msg_id="m1")
        await receiver.wait_for_many(1)
        file = {"url": "https://example.org/report.pdf", "file_type": "pdf", "file_name": "report.pdf"}
        await receiver.send({"type": 2, "send_id": you, "receive_id": me, "file_size": "12KB", **file})
        got = await sender.wait_for_many(2), await receiver.wait_for_many(2)
    for messages in got:
        assert [(message["seq"], message["type"], message["send_id"]) for message in messages] == [
            (1, 0, me),
            (2, 2, you),
        ]
        assert messages[0]["content"] == "Hello, how are you?"
        assert {name: messages[1][name] for name in (*file, "file_size")} == {**file, "file_size": "12KB"}


async def test_a_message_has_the_same_history_on_every_node(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[0], me) as sender:
        await sender.say(you, "for later")
        (echo,) = await sender.wait_for_many(1)
    for node in trio.nodes:
        assert [(message["uuid"], message["seq"]) for message in await history(node, me, you)] == [(echo["uuid"], 1)]


async def test_a_group_spans_all_nodes(trio: Cluster) -> None:
    users, group = [new_user() for _ in range(3)], new_group()
    await create_group(trio.nodes[0], group, users[0], *users[1:])
    async with (
        login(trio.nodes[0], users[0]) as one,
        login(trio.nodes[1], users[1]) as two,
        login(trio.nodes[2], users[2]) as three,
    ):
        for seq, peer in enumerate((one, two, three), 1):
            await peer.say(group, f"from {peer.user_id}")
            for other in (one, two, three):
                await other.wait_for_many(seq)
        for peer in (one, two, three):
            assert [(message["seq"], message["send_id"]) for message in peer.messages] == list(enumerate(users, 1))


async def test_each_device_on_each_node_gets_every_message_once(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with (
        login(trio.nodes[0], me, device="phone") as phone,
        login(trio.nodes[1], me, device="desk") as desk,
        login(trio.nodes[2], me, device="tablet") as tablet,
        login(trio.nodes[1], you) as other,
    ):
        for number in range(20):
            await other.say(me, f"to you {number}")
            await phone.say(you, f"from me {number}")
        for peer in (phone, desk, tablet, other):
            await peer.wait_for_many(40)
        await other.say(me, "the last one")
        for peer in (phone, desk, tablet):
            await peer.wait_for(lambda frame: frame.get("content") == "the last one")
            assert [message["seq"] for message in peer.messages] == list(range(1, 42))


async def test_a_sender_hears_that_its_message_was_sent_on_another_node(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[0], me) as sender, login(trio.nodes[2], you):
        await sender.say(you, client_msg_id="m1")
        await sender.wait_for(lambda frame: frame["type"] == "ack")
        status = await sender.wait_for(_status("sent", you))
    assert status["seq"] == 1


async def test_a_sender_hears_that_its_message_was_read_on_another_node(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[1], me) as sender, login(trio.nodes[2], you) as receiver:
        await sender.say(you, client_msg_id="m1")
        (message,) = await receiver.wait_for_many(1)
        await receiver.send({"type": "read", "uuid": message["uuid"]})
        status = await sender.wait_for(_status("read", you))
    assert status["seq"] == 1


async def test_a_call_signal_reaches_a_user_on_another_node(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[0], me) as sender, login(trio.nodes[1], you) as receiver:
        signal = '{"messageId":"PROXY","type":"candidate"}'
        await sender.send({"type": 3, "send_id": me, "receive_id": you, "av_data": signal})
        (message,) = await receiver.wait_for_many(1)
    assert (message["av_data"], message["seq"]) == (signal, 0)


async def test_a_retry_on_another_node_is_stored_and_shown_once(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with (
        login(trio.nodes[0], me) as first,
        login(trio.nodes[1], me) as second,
        login(trio.nodes[2], you) as receiver,
    ):
        await first.say(you, "once", client_msg_id="m1")
        await second.say(you, "once", client_msg_id="m1")
        for peer in (first, second):
            await peer.wait_for(lambda frame: frame["type"] == "ack")
        await second.say(you, "behind it")
        await receiver.wait_for(lambda frame: frame.get("content") == "behind it")
        assert [message["content"] for message in receiver.messages] == ["once", "behind it"]
    assert [message["seq"] for message in await history(trio.nodes[0], me, you)] == [1, 2]


async def test_what_a_user_missed_is_caught_up_on_whichever_node_it_comes_back_to(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[0], you):
        pass
    async with login(trio.nodes[1], me) as sender:
        for number in range(5):
            await sender.say(you, str(number))
        await sender.wait_for_many(5)
    async with login(trio.nodes[2], you) as receiver:
        assert [message["seq"] for message in receiver.messages] == [1, 2, 3, 4, 5]


async def test_a_logout_closes_the_connections_on_all_nodes(trio: Cluster) -> None:
    me = new_user()
    async with login(trio.nodes[0], me) as phone, login(trio.nodes[1], me) as desk:
        answer = await request(trio.nodes[2], "POST", "/user/wsLogout", json={"owner_id": me}, headers=bearer(me))
        assert answer.json()["code"] == 1000
        for peer in (phone, desk):
            code, _ = await peer.wait_for_close()
            assert code == 1000


async def test_a_kick_reaches_every_node_and_counts_what_it_closes(trio: Cluster) -> None:
    me = new_user()
    async with login(trio.nodes[0], me) as phone, login(trio.nodes[1], me) as desk:
        assert await act(trio.nodes[2], "/admin/kick", {"user_id": me, "reason": "spam"}) == {"closed": 2}
        assert [await peer.wait_for_close() for peer in (phone, desk)] == [(4002, "spam")] * 2


async def test_a_removed_member_is_refused_on_every_node(trio: Cluster) -> None:
    owner, leaver, group = new_user(), new_user(), new_group()
    await create_group(trio.nodes[0], group, owner, leaver)
    peers = [login(node, leaver) for node in trio.nodes]
    async with peers[0], peers[1], peers[2]:
        for seq, peer in enumerate(peers, 1):  # each node knows the members from now on
            await peer.say(group)
            await peer.wait_for_many(seq)
        await act(trio.nodes[1], f"/admin/groups/{group}/members", {"remove": [leaver]})
        async with asyncio.timeout(5):
            for peer in peers:
                while not peer.of_type("error"):
                    await peer.say(group, "may I still?")
                    await peer.ping()
        assert {peer.of_type("error")[0]["code"] for peer in peers} == {1007}


async def test_a_removed_member_gets_nothing_more(trio: Cluster) -> None:
    owner, leaver, group = new_user(), new_user(), new_group()
    await create_group(trio.nodes[0], group, owner, leaver)
    async with login(trio.nodes[0], owner) as peer, login(trio.nodes[1], leaver) as gone:
        await peer.say(group, "all of us")
        await gone.wait_for_many(1)
        await act(trio.nodes[2], f"/admin/groups/{group}/members", {"remove": [leaver]})
        async with asyncio.timeout(5):
            while not gone.of_type("error"):
                await gone.send(text_message(leaver, group, "may I still?"))
                await gone.ping()
        await peer.say(group, "without you")
        await peer.wait_for(lambda frame: frame.get("content") == "without you")
        await peer.say(leaver, "behind it")
        await gone.wait_for(lambda frame: frame.get("content") == "behind it")
        assert "without you" not in {message["content"] for message in gone.messages}


async def test_every_node_lists_all_nodes(trio: Cluster) -> None:
    for node in trio.nodes:
        known = await asyncio.to_thread(known_nodes, node)
        assert set(known) == {name_of(one) for one in trio.nodes}
        assert len({info["id"] for info in known.values()}) == 3, "no two nodes share a number"
