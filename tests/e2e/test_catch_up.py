"""Catch-up: what a user missed comes first, in order, once, and no faster than it is read."""

import asyncio
from typing import Any

from support import RunningNode, StartNode, eventually, token

from kama.chat_client import ChatClient


def seqs(messages: list[dict[str, Any]], conversation: str = "") -> list[int]:
    return [message["seq"] for message in messages if conversation in ("", message["receive_id"])]


async def post(node: RunningNode, send_id: str, receive_id: str, count: int, start: int = 1) -> None:
    """Stored when it returns."""
    async with node.login(send_id, post_only="1") as sender:
        for number in range(start, start + count):
            await sender.say(receive_id, f"{number}", client_msg_id=f"{send_id}-{receive_id}-{number}")
        await sender.wait_for_many(count, lambda frame: frame.get("type") == "ack", seconds=30)


async def test_a_message_to_somebody_who_never_logged_in_waits(node: RunningNode) -> None:
    await post(node, "U1", "U2", 3)
    async with node.login("U2") as receiver:
        assert [message["content"] for message in receiver.messages] == ["1", "2", "3"]
        assert receiver.frames[-1]["complete"] is True


async def test_what_was_sent_once_is_not_caught_up_again(node: RunningNode) -> None:
    await post(node, "U1", "U2", 3)
    async with node.login("U2") as receiver:
        assert len(receiver.messages) == 3
    async with node.login("U2") as receiver:  # at once: before the store has been told
        assert receiver.messages == []
    await post(node, "U1", "U2", 1, start=4)
    async with node.login("U2") as receiver:
        assert seqs(receiver.messages) == [4]


async def test_catch_up_comes_before_live_messages_while_others_go_on_sending(node: RunningNode) -> None:
    await post(node, "U1", "U2", 200)
    async with asyncio.TaskGroup() as group:
        group.create_task(post(node, "U1", "U2", 200, start=201))
        for _ in range(5):
            async with node.login("U2") as receiver:
                await asyncio.sleep(0)
            first = receiver.messages[0]["seq"] if receiver.messages else 0
            assert seqs(receiver.messages) == list(range(first, first + len(receiver.messages)))


async def test_past_resume_max_the_rest_is_left_to_pull(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0, "resume_max": 10})
    await post(node, "U1", "U2", 25)
    async with node.login("U2") as receiver:
        told = receiver.frames[-1]
        assert seqs(receiver.messages) == list(range(1, 11))
        assert told["complete"] is False
        assert told["behind"] == [{"conversation": "U1_U2", "after_seq": 10, "last_seq": 25}]
        await receiver.send({"type": "pull", "conversation": "U1_U2", "after_seq": 10, "limit": 10})
        first = await receiver.wait_for(lambda frame: frame.get("event") == "pulled")
        assert (first["complete"], first["last_seq"]) == (False, 25)
        await receiver.send({"type": "pull", "conversation": "U1_U2", "after_seq": 20, "limit": 10})
        await receiver.wait_for(lambda frame: frame.get("event") == "pulled" and frame["complete"])
        assert seqs(receiver.messages) == list(range(1, 26))
    await eventually(lambda: node.node.status.depth == 0)
    async with node.login("U2") as receiver:
        assert receiver.messages == [], "what was pulled in full is not behind any more"


async def test_a_backlog_that_was_not_pulled_is_still_there_at_the_next_login(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0, "resume_max": 10})
    await post(node, "U1", "U2", 25)
    async with node.login("U2") as receiver:
        assert seqs(receiver.messages) == list(range(1, 11))
    await eventually(lambda: node.node.status.depth == 0)
    async with node.login("U2") as receiver:
        assert seqs(receiver.messages) == list(range(11, 21))


def said_to_be_sent(frames: list[dict[str, Any]]) -> set[int]:
    """The seqs that status frames have said are sent."""
    statuses = [frame for frame in frames if frame.get("type") == "status"]
    return {seq for frame in statuses for seq in range(frame.get("after", 0) + 1, frame["seq"] + 1)}


async def test_of_a_backlog_that_is_left_to_pull_no_sender_is_told_that_it_was_sent(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0, "resume_max": 2})
    await post(node, "U1", "U2", 5)
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.say("U2", "6", client_msg_id="6")
        await sender.wait_for(lambda frame: frame.get("type") == "status" and frame["seq"] == 6)
        await eventually(lambda: said_to_be_sent(sender.frames) == {1, 2, 6})
        await receiver.send({"type": "pull", "conversation": "U1_U2", "after_seq": 2, "limit": 3})
        await eventually(lambda: said_to_be_sent(sender.frames) == {1, 2, 3, 4, 5, 6})
        assert seqs(receiver.messages) == [1, 2, 6, 3, 4, 5]


async def test_once_a_backlog_is_pulled_what_was_sent_beyond_it_is_not_caught_up_again(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0, "resume_max": 2})
    await post(node, "U1", "U2", 5)
    async with node.login("U2") as receiver:
        await post(node, "U1", "U2", 1, start=6)
        await receiver.send({"type": "pull", "conversation": "U1_U2", "after_seq": 2, "limit": 3})
        await receiver.wait_for(lambda frame: frame.get("event") == "pulled")
    await eventually(lambda: node.node.status.depth == 0)
    async with node.login("U2") as receiver:
        assert receiver.messages == []


async def test_the_backlog_is_paced_by_a_socket_that_does_not_read(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0, "resume_max": 100_000})
    async with node.login("U1", post_only="1") as sender:
        for number in range(300):
            await sender.say("U2", f"{number}" + "x" * 40_000, client_msg_id=str(number))
        await sender.wait_for_many(300, lambda frame: frame.get("type") == "ack", seconds=30)
    async with node.login("U2", frozen=True) as receiver:
        conn = await eventually(lambda: node.node.registry.get("U2"))
        await eventually(lambda: not conn[0].socket.can_write)
        written = conn[0].counters.written
        async with node.login("U3") as other:
            await other.say("U3", "the node turns")
            await other.wait_for_many(1)
        assert conn[0].counters.written == written < 300
        assert conn[0].closing is None, "reading slowly what one missed is nothing to be closed for"
        receiver.thaw()
        assert seqs(await receiver.wait_for_many(300, seconds=30)) == list(range(1, 301))


async def test_a_new_member_gets_what_comes_and_not_what_was(node: RunningNode) -> None:
    await node.create_group("G1", "U1")
    await post(node, "U1", "G1", 3)
    body = {"add": ["U2"]}
    headers = {"Authorization": f"Bearer {token('Uadmin', 'admin')}"}
    await node.request("POST", "/admin/groups/G1/members", json=body, headers=headers)
    await post(node, "U1", "G1", 2, start=4)
    async with node.login("U2") as member:
        assert seqs(member.messages) == [4, 5]


async def test_a_client_that_reconnects_again_and_again_has_everything_once_and_in_order(node: RunningNode) -> None:
    got: list[int] = []
    client = ChatClient(node.url, "U2", lambda: token("U2"), lambda frame: got.append(frame["seq"]))
    running = asyncio.get_running_loop().create_task(client.run())

    async def cut_again_and_again() -> None:
        for _ in range(5):
            at, connects = len(got), client.connects
            for conn in node.node.registry.get("U2"):
                conn.socket.transport.abort()  # type: ignore[attr-defined]
            await eventually(lambda connects=connects: client.connects > connects, seconds=30)
            await eventually(lambda at=at: len(got) > at + 10 or len(got) == 500, seconds=30)

    async with asyncio.TaskGroup() as group:
        group.create_task(post(node, "U1", "U2", 500))
        group.create_task(cut_again_and_again())
    await eventually(lambda: len(got) >= 500, seconds=30)
    running.cancel()
    assert got == list(range(1, 501))
    assert client.connects > 3


async def test_a_client_that_wants_only_what_is_new_is_given_nothing_old(node: RunningNode) -> None:
    await post(node, "U1", "U2", 5)
    async with node.login("U2"):
        pass
    await eventually(lambda: node.node.status.depth == 0)
    got: list[int] = []
    client = ChatClient(node.url, "U2", lambda: token("U2"), lambda frame: got.append(frame["seq"]), unknown="new")
    running = asyncio.get_running_loop().create_task(client.run())
    await client.wait_caught_up()
    await post(node, "U1", "U2", 1, start=6)
    await eventually(lambda: got)
    running.cancel()
    assert got == [6]
