"""Watching a cluster from one of its nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from kafka_cluster import Cluster, Places, cluster_of, known_nodes, login, name_of, new_user
from monitor_client import Watch
from support import NodeProcess

from kama.monitor_protocol import Node

pytestmark = [pytest.mark.kafka, pytest.mark.heavy]


@pytest.fixture(scope="module")
def pair(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_of(2, tmp_path_factory.mktemp("pair"), places) as cluster:
        yield cluster


def seen(watch: Watch, node: NodeProcess) -> Node | None:
    return watch.nodes.get(name_of(node))


async def test_each_node_shows_the_other(pair: Cluster) -> None:
    here, there = pair.nodes
    async with Watch(here.url) as watch, login(there, new_user()), login(there, new_user()):
        await watch.snap()
        other = await watch.wait_for(lambda: (node := seen(watch, there)) and node.connections == 2 and node)
        assert other
        assert (other.state, other.mode) == ("up", "kafka")
        assert {"transmit", "send_back", "status", "cache", "retries", "peers"} == set(other.queues)
        assert other.rss_bytes > 0
        assert "node" not in known_nodes(here)[name_of(there)]


async def test_the_partitions_are_shared_out_and_without_lag_in_the_end(pair: Cluster) -> None:
    me, them = new_user(), new_user()
    async with Watch(pair.nodes[0].url) as watch, login(pair.nodes[0], me) as one, login(pair.nodes[1], them) as two:
        await watch.snap()
        for number in range(20):
            await one.say(them, str(number))
        await two.wait_for_many(20)

        def shared() -> bool:
            nodes = list(watch.nodes.values())
            held = [place.partition for node in nodes for place in node.partitions]
            moved = sum(place.position for node in nodes for place in node.partitions)
            lag = sum(place.lag for node in nodes for place in node.partitions)
            return (
                sorted(held) == list(range(12)) and all(node.partitions for node in nodes) and moved >= 20 and not lag
            )

        await watch.wait_for(shared)
        assert all(node.rebalances >= 1 for node in watch.nodes.values())


async def test_a_trace_says_where_kafka_has_the_message_and_which_nodes_were_told(pair: Cluster) -> None:
    me, them = new_user(), new_user()
    here, there = pair.nodes
    async with Watch(here.url) as watch, Watch(there.url) as other, login(here, me) as one, login(there, them) as two:
        await watch.snap()
        await other.snap()
        await one.say(them)
        uuid = (await two.wait_for_many(1))[0]["uuid"]
        produced = await watch.event("produced", lambda event: event.uuid == uuid)
        topic, partition, offset = produced.place.split("/")
        assert (topic, partition.isdigit(), offset.isdigit()) == (pair.topic, True, True)
        await other.event("written", lambda event: event.uuid == uuid)

        def told() -> list[str]:
            routed = [
                event for event in (*watch.events, *other.events) if event.kind == "routed" and event.uuid == uuid
            ]
            return [event.text for event in routed if event.text]

        while not told():
            await watch.wait_for(lambda: watch.events, seconds=1)
        assert told() in ([name_of(here)], [name_of(there)])


async def test_a_kick_reaches_a_user_on_another_node(pair: Cluster) -> None:
    them = new_user()
    async with Watch(pair.nodes[0].url, role="admin") as watch, login(pair.nodes[1], them) as peer:
        detail = await watch.ask("user", user_id=them)
        assert detail.outcome is not None and detail.outcome.user is not None
        assert (detail.outcome.user.clients, detail.outcome.user.elsewhere) == ([], 1)
        result = await watch.ask("kick", user_id=them, reason="rude")
        assert result.outcome is not None
        assert result.outcome.closed == 1
        assert await peer.wait_for_close() == (4002, "rude")


@pytest.mark.drill
async def test_a_killed_node_is_gone_within_fifteen_seconds_with_its_last_numbers(pair: Cluster) -> None:
    pair.start(1)
    here, doomed = pair.nodes[0], pair.nodes[-1]
    async with Watch(here.url) as watch:
        await watch.snap()
        async with login(doomed, new_user(), frozen=True):
            await watch.wait_for(lambda: (node := seen(watch, doomed)) and node.connections == 1)
            doomed.kill()
            killed = time.monotonic()
            await watch.wait_for(lambda: (node := seen(watch, doomed)) and node.state == "gone", seconds=15)
            assert time.monotonic() - killed < 15
            gone = seen(watch, doomed)
            assert gone is not None
            assert (gone.connections, gone.counters.logins) == (1, 1)
