"""A client that does not read costs itself its connection, and nobody else anything."""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack

import pytest
from support import Peer, RunningNode, StartNode, eventually

from kama.errors import CloseCode
from kama.server.transport.server_socket import LINGER

PAIRS = 99
FLOOD = 250
LARGE = "x" * 40_000


async def flood(node: RunningNode, receive_id: str) -> None:
    """Large messages until what the system keeps for a receiver that does not read is long full."""
    async with node.login("Uflood", post_only="1") as sender:
        for number in range(FLOOD):
            await sender.say(receive_id, f"{number} {LARGE}", client_msg_id=f"{receive_id}-{number}")
        await sender.wait_for_many(FLOOD, lambda frame: frame.get("type") == "ack", seconds=30)


async def round_trips(pairs: list[tuple[Peer, Peer]], until: asyncio.Event) -> list[float]:
    """Seconds from a message's departure to its arrival, one pair after the other."""
    taken: list[float] = []
    while not until.is_set():
        for sender, receiver in pairs:
            sent = time.perf_counter()
            content = f"ping {len(taken)}"
            await sender.say(receiver.user_id, content)
            await receiver.wait_for(lambda frame, content=content: frame.get("content") == content)
            receiver.frames.clear()
            sender.frames.clear()
            taken.append(time.perf_counter() - sent)
    return taken


async def round_trips_during_a_flood(node: RunningNode, pairs: list[tuple[Peer, Peer]], receive_id: str) -> list[float]:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        measured = group.create_task(round_trips(pairs, over))
        await flood(node, receive_id)
        over.set()
    return measured.result()


@pytest.mark.heavy
async def test_a_frozen_client_among_two_hundred_delays_nobody_and_loses_nothing(start_node: StartNode) -> None:
    """KamaChat defects 2 and 3: there, one client with a full queue stops the whole node."""
    node = await start_node()
    async with AsyncExitStack() as stack:
        reading = await stack.enter_async_context(node.login("Ureads"))
        frozen = await stack.enter_async_context(node.login("Ufrozen", frozen=True))
        pairs = [
            (
                await stack.enter_async_context(node.login(f"Ua{number}")),
                await stack.enter_async_context(node.login(f"Ub{number}")),
            )
            for number in range(PAIRS)
        ]
        beside_reader = await round_trips_during_a_flood(node, pairs, "Ureads")
        beside_frozen = await round_trips_during_a_flood(node, pairs, "Ufrozen")

        assert statistics.median(beside_frozen) < 3 * statistics.median(beside_reader) + 0.02
        assert [message["seq"] for message in reading.messages] == list(range(1, FLOOD + 1))
        ended = await eventually(lambda: [gone for gone in node.node.registry.closed if gone.user_id == "Ufrozen"])
        assert [gone.code for gone in ended] == [CloseCode.SLOW_CONSUMER]
        assert len(node.node.registry) == 2 * PAIRS + 1

        # The node gives up on it, with what it had written and the system had not taken. What did get out, and
        # what it is caught up with when it is back, follow on each other: nothing fell between.
        sockets = node.server.server_state.connections
        await eventually(lambda: len(sockets) == 2 * PAIRS + 1, seconds=2 * LINGER)
        frozen.thaw()
        await frozen.wait_for_close()
        before = [message["seq"] for message in frozen.messages]
        assert before == list(range(1, len(before) + 1))
        async with node.login("Ufrozen") as back:
            after = [message["seq"] for message in back.messages]
        assert after == list(range(after[0], FLOOD + 1))
        assert after[0] <= len(before) + 1
        assert len(after) > 10, "most of the flood found it frozen"
