"""The same client_msg_id from the same sender again is the same message, however often and wherever it comes."""

from __future__ import annotations

import asyncio
import json

from support import RunningNode, bearer, new_id, text_message


async def test_a_retry_gets_the_same_ack_and_nobody_gets_it_twice(node: RunningNode) -> None:
    """KamaChat defect 11: there, a retry was another message."""
    async with node.login("U1") as sender, node.login("U2") as receiver:
        for _ in range(3):
            await sender.say("U2", "once", client_msg_id="m1")
        await sender.say("U2", "marker")
        messages = await receiver.wait_for_many(2)
        assert [message["content"] for message in messages] == ["once", "marker"]
        assert [message["seq"] for message in messages] == [1, 2]
        acks = await sender.wait_for_many(3, lambda frame: frame["type"] == "ack")
        assert {ack["uuid"] for ack in acks} == {messages[0]["uuid"]}
        assert len(sender.messages) == 2


async def test_a_retry_after_another_login_is_the_same_message(node: RunningNode) -> None:
    acks = []
    for _ in range(2):
        async with node.login("U1") as sender:
            await sender.say("U2", client_msg_id="m1")
            acks.append(await sender.wait_for(lambda frame: frame["type"] == "ack"))
    assert acks[0] == acks[1]
    assert len(await node.history("U1", "U2")) == 1


async def test_the_first_wording_stays(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        await sender.say("U2", "the first", client_msg_id="m1")
        await sender.say("U3", "another text to somebody else", client_msg_id="m1")
        await sender.wait_for_many(2, lambda frame: frame["type"] == "ack")
        assert [message["content"] for message in await node.history("U1", "U2")] == ["the first"]
        assert await node.history("U1", "U3") == []


async def test_two_senders_may_choose_the_same_id(node: RunningNode) -> None:
    async with node.login("U1") as one, node.login("U2") as two:
        await one.say("U2", "from U1", client_msg_id="m1")
        await two.say("U1", "from U2", client_msg_id="m1")
        for peer in (one, two):
            assert {message["content"] for message in await peer.wait_for_many(2)} == {"from U1", "from U2"}


async def test_messages_without_an_id_are_never_the_same(node: RunningNode) -> None:
    async with node.login("U1") as sender:
        for _ in range(3):
            await sender.say("U2", "again")
        assert len({message["uuid"] for message in await sender.wait_for_many(3)}) == 3


async def test_a_thousand_retries_over_several_connections_are_one_row_and_one_delivery(node: RunningNode) -> None:
    message = json.dumps(text_message("U1", "U2", "once", client_msg_id=new_id()))
    async with (
        node.login("U1") as one,
        node.login("U1") as two,
        node.login("U1") as three,
        node.login("U1") as four,
        node.login("U2") as receiver,
    ):
        senders = (one, two, three, four)

        async def retry(number: int) -> None:
            for _ in range(245):
                await senders[number].send(message)

        async def post() -> str:
            answer = await node.request("POST", "/message/send", content=message, headers=bearer("U1"))
            return str(answer.json()["data"]["uuid"])

        posted, _ = await asyncio.gather(
            asyncio.gather(*(post() for _ in range(20))), asyncio.gather(*map(retry, range(4)))
        )
        uuids = set(posted)
        for sender in senders:
            acks = await sender.wait_for_many(245, lambda frame: frame["type"] == "ack", seconds=30)
            uuids |= {ack["uuid"] for ack in acks}
        await one.say("U2", "marker")
        assert [each["content"] for each in await receiver.wait_for_many(2)] == ["once", "marker"]
        assert uuids == {receiver.messages[0]["uuid"]}
        for sender in senders:
            assert [each["content"] for each in await sender.wait_for_many(2)] == ["once", "marker"]
        assert len(await node.history("U1", "U2")) == 2
        assert node.node.chat.counters.duplicates == 999
