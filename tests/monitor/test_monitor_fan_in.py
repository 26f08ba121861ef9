"""FanInSource: several nodes as one source; nodes that are found, and left."""

from __future__ import annotations

import asyncio

import pytest
from simulated_node import SimulatedNode
from support import eventually
from watching_support import FakeNode, Watching, fake, live_source

from kama.errors import CannotConnect, TimedOut
from kama.monitor.fan_in import FanInSource
from kama.monitor.link import LinkState
from kama.monitor_protocol import Node, Outcome, Result, Sub, Trace


def listed(node: SimulatedNode, server: FakeNode, **fields: object) -> Node:
    return Node(name=node.name, epoch="e", address=server.address, **fields)  # type: ignore[arg-type]


async def test_several_nodes_are_one_source() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    one.connect("c1")
    two.connect("c2")
    async with fake(one) as first, fake(two) as second:
        source = FanInSource([live_source(first.url), live_source(second.url)])
        async with Watching(source) as watching:
            await eventually(lambda: set(watching.store.clients) == {"c1", "c2"})
            assert set(watching.store.nodes) == {"n1", "n2"} and source.names == (first.url, second.url)


async def test_one_node_lost_leaves_the_others_live() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    async with fake(two) as second:
        async with fake(one) as first:
            source = FanInSource([live_source(first.url), live_source(second.url)])
            watching = await Watching(source).__aenter__()
            await watching.until(LinkState.LIVE, first.url)
            await watching.until(LinkState.LIVE, second.url)
        await watching.until(LinkState.GONE, first.url)
        await second.say(two.delta())
        await eventually(lambda: watching.store.sources[second.url].chain.seq == 2)
        await watching.until(LinkState.LIVE, second.url)
        await watching.__aexit__(None, None, None)


async def test_nodes_that_a_node_lists_are_watched_with_what_is_wanted() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    two.connect("c2")
    async with fake(two) as second:
        one.others["n2"] = listed(two, second)
        async with fake(one) as first:
            source = FanInSource([live_source(first.url)], live_source)
            wanted = Sub(interval_ms=500)
            await source.subscribe(wanted)
            async with Watching(source) as watching:
                await eventually(lambda: "c2" in watching.store.clients)
                assert second.received[0][0] == wanted and source.names == (first.url, second.url)


async def test_a_node_that_is_given_is_not_found_once_more_by_another_address() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    async with fake(two) as second:
        one.others["n2"] = listed(two, second)
        async with fake(one) as first:
            by_name = second.url.replace("127.0.0.1", "localhost")
            source = FanInSource([live_source(first.url), live_source(by_name)], live_source)
            async with Watching(source) as watching:
                await watching.until(LinkState.LIVE, by_name)
                await first.say(one.delta())
                await eventually(lambda: watching.store.sources[first.url].chain.seq == 2)
                assert source.names == (first.url, by_name)


async def test_a_found_node_is_left_when_it_is_lost_and_listed_no_more_and_found_again_when_it_is_back() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    async with fake(one) as first:
        source = FanInSource([live_source(first.url)], live_source)
        async with Watching(source) as watching:
            async with fake(two) as second:
                await watching.until(LinkState.LIVE)
                one.others["n2"] = listed(two, second)
                await first.say(one.delta())
                await watching.until(LinkState.LIVE, second.url)
            await watching.until(LinkState.GONE, second.url)
            one.others["n2"] = listed(two, second, state="gone")
            await first.say(one.delta())
            await eventually(lambda: second.url not in watching.store.sources)
            assert source.names == (first.url,) and watching.store.nodes["n2"].state == "gone"
            async with fake(two) as back:
                one.others["n2"] = listed(two, back)
                await first.say(one.delta())
                await watching.until(LinkState.LIVE, back.url)


async def test_a_request_goes_to_the_node_that_is_named() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    async with fake(one) as first, fake(two) as second:
        source = FanInSource([live_source(first.url), live_source(second.url)])
        async with Watching(source) as watching:
            await watching.until(LinkState.LIVE, second.url)
            with pytest.raises(CannotConnect, match="is not watched"):
                await source.request(Trace(request="r", uuid="1"), source="http://nobody")
            with pytest.raises(TimedOut):
                await source.request(Trace(request="r", uuid="1"), source=second.url, timeout=0.2)
            await eventually(lambda: Trace(request="r", uuid="1") in second.received[0])
            assert not any(isinstance(frame, Trace) for frame in first.received[0])


async def test_what_a_node_answers_comes_back_to_who_asked() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    async with fake(one) as first, fake(two) as second:
        source = FanInSource([live_source(first.url), live_source(second.url)])
        async with Watching(source) as watching:
            await watching.until(LinkState.LIVE, second.url)
            asked = asyncio.get_running_loop().create_task(
                source.request(Trace(request="r", uuid="1"), source=second.url)
            )
            await eventually(lambda: Trace(request="r", uuid="1") in second.received[0])
            await second.say(Result(request="other"), Result(request="r", outcome=Outcome(closed=2)))
            assert (await asked).closed == 2


async def test_without_any_connection_a_request_says_so() -> None:
    async with FanInSource([live_source("http://127.0.0.1:1")]) as source:
        with pytest.raises(CannotConnect, match="no node is connected"):
            await source.request(Trace(request="r", uuid="1"))


async def test_what_goes_wrong_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(BrokenPipeError):
        async with FanInSource([live_source("http://127.0.0.1:1")]):
            raise BrokenPipeError
