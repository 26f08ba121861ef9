"""LiveSource frame by frame, against a server that says what a test wants: acks, gaps, foreign frames."""

from __future__ import annotations

import asyncio
import contextlib

from simulated_node import SimulatedNode
from support import eventually
from watching_support import FakeNode, Watching, fake, live_source

from kama.monitor.link import LinkState
from kama.monitor_protocol import Ack, Event, Snap, Sub


async def test_it_says_first_what_it_wants_and_acks_each_frame() -> None:
    node = SimulatedNode()
    sub = Sub(interval_ms=500)
    async with fake(node) as server, Watching(live_source(server.url, sub=sub)) as watching:
        await watching.until(LinkState.LIVE)
        await server.say(node.delta(), node.events())
        await eventually(lambda: server.received[0][1:] == [Ack(1), Ack(2), Ack(3)])
        assert server.received[0][0] == sub


async def test_a_frame_is_acked_when_it_was_taken_and_not_before() -> None:
    node = SimulatedNode()
    source = live_source("http://127.0.0.1:1")
    async with fake(node) as server:
        source = live_source(server.url)
        async with source:
            items = aiter(source)
            async for item in items:
                if isinstance(item.frame, Snap):
                    break
            await server.connections[0].ping()
            assert Ack(1) not in server.received[0]
            following = asyncio.get_running_loop().create_task(anext(items))
            await eventually(lambda: Ack(1) in server.received[0])
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


async def test_after_a_gap_it_asks_for_a_snap_once() -> None:
    node = SimulatedNode()
    async with fake(node) as server, Watching(live_source(server.url)) as watching:
        await watching.until(LinkState.LIVE)
        node.delta()  # lost
        await server.say(node.delta(), node.delta())
        await eventually(lambda: server.received[0][-1] == Ack(4))
        assert [frame for frame in server.received[0] if isinstance(frame, Sub)] == [Sub(), Sub()]
        node.connect("c1")
        await server.say(node.snap())
        await eventually(lambda: set(watching.store.clients) == {"c1"})
        assert not watching.store.needs_snap(server.url)


async def test_what_was_wanted_last_is_wanted_again_after_a_reconnect() -> None:
    node = SimulatedNode()
    source = live_source("http://127.0.0.1:1")
    async with fake(node) as server:
        source = live_source(server.url)
        async with Watching(source) as watching:
            await watching.until(LinkState.LIVE)
            wanted = Sub(interval_ms=1_000)
            await source.subscribe(wanted)
            await server.connections[0].close()
            await eventually(lambda: len(server.received) > 1 and server.received[1])
            assert server.received[1][0] == wanted


async def test_events_that_come_again_after_a_reconnect_are_not_shown_twice() -> None:
    node = SimulatedNode()
    event = Event(at_ms=node.now_ms, kind="opened", node="n1", user_id="U1")
    async with (
        FakeNode(node.hello(), node.snap(), node.events(event)) as server,
        Watching(live_source(server.url)) as watching,
    ):
        await eventually(lambda: watching.store.events)
        await server.connections[0].close()
        await eventually(lambda: len(server.received) > 1 and len(server.received[1]) == 3)
        assert list(watching.store.events) == [event]


async def test_a_node_that_sends_less_often_than_asked_makes_a_slow_link() -> None:
    node = SimulatedNode()
    async with fake(node) as server, Watching(live_source(server.url)) as watching:
        await watching.until(LinkState.LIVE)
        node.interval_ms = 2_000
        await server.say(node.delta())
        link = await watching.until(LinkState.SLOW)
        assert "2000 ms" in link.cause


async def test_another_protocol_is_incompatible_and_names_both() -> None:
    hello = SimulatedNode().hello()
    hello.protocol = 7
    async with FakeNode(hello) as server, Watching(live_source(server.url)) as watching:
        link = await watching.until(LinkState.INCOMPATIBLE)
        assert "expected monitor protocol 1, got 7" in link.cause


async def test_frames_that_cannot_be_read_are_incompatible() -> None:
    async with FakeNode(b'{"type":"snap","seq":"x"}') as server, Watching(live_source(server.url)) as watching:
        link = await watching.until(LinkState.INCOMPATIBLE)
        assert "expected a frame of a kama node" in link.cause


async def test_frames_that_only_newer_nodes_send_are_skipped() -> None:
    node = SimulatedNode()
    server = FakeNode(node.hello(), b'{"type":"weather","rain":true}', node.snap())
    async with server, Watching(live_source(server.url)) as watching:
        await watching.until(LinkState.LIVE)


async def test_something_else_at_the_address_is_gone_and_said() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Watching(live_source(f"http://127.0.0.1:{port}")) as watching:
        link = await watching.until(LinkState.GONE)
        assert "does not speak WebSocket" in link.cause
