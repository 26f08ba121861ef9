"""ChatClient against a node that refuses for now: it waits, and never makes it worse."""

import asyncio

from support import StartNode, token

from kama.chat_client import ChatClient


async def test_many_messages_over_the_limit_are_all_accepted_and_the_connection_stays(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 100, "burst": 5})
    client = ChatClient(node.url, "U1", lambda: token("U1"), lambda frame: None)
    running = asyncio.get_running_loop().create_task(client.run())
    async with asyncio.TaskGroup() as group:
        sent = [group.create_task(client.send("U2", f"{number}")) for number in range(100)]
    running.cancel()
    assert len({task.result() for task in sent}) == 100
    assert client.connects == 1
    assert node.node.chat.counters.stored == 100
    assert node.node.sessions.refused_frames < 300, "who was refused comes back one at a time"


async def test_the_http_side_is_made_only_when_it_is_used(start_node: StartNode) -> None:
    node = await start_node()
    client = ChatClient(node.url, "U1", lambda: token("U1"), lambda frame: None)
    running = asyncio.get_running_loop().create_task(client.run())
    await client.wait_caught_up()
    assert client._node._http is None
    running.cancel()
