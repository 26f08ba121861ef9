"""Kafka, Redis or PostgreSQL is away for a while: people are told, nothing is lost, and nobody restarts a node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kafka_cluster import Cluster, OwnServices, cluster_of, history, known_nodes, login, name_of, new_user, request
from kafka_drill import PEOPLE, Drill
from support import NodeProcess, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.heavy, pytest.mark.timeout(150)]

# Longer than a node's announcement lives without being repeated.
REDIS_AWAY = 20.0


async def _ready(node: NodeProcess) -> tuple[int, dict[str, str]]:
    """What a load balancer sees: the status, and each check."""
    answer = await request(node, "GET", "/health/ready")
    return answer.status_code, answer.json()["checks"]


async def _until_ready(node: NodeProcess, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while (await _ready(node))[0] != 200:
            await asyncio.sleep(0.1)


async def _until_complete(cluster: Cluster) -> None:
    """Every node knows every node, with all of its connections."""
    names = {name_of(node) for node in cluster.nodes}

    def is_complete() -> bool:
        known = [known_nodes(node) for node in cluster.nodes]
        return all(
            set(infos) == names and sum(info["connections"] for info in infos.values()) == PEOPLE for infos in known
        )

    await eventually(is_complete, 20)


async def test_while_kafka_is_away_senders_are_told_and_the_rest_lives_on(
    services: OwnServices, tmp_path: Path
) -> None:
    me, you = new_user(), new_user()
    with cluster_of(2, tmp_path, services.places, KAMA_LIMITS__PUBLISH_TIMEOUT="2s") as cluster:
        one, two = cluster.nodes
        async with login(one, me) as sender, login(two, you) as receiver:
            await sender.say(you, "before", client_msg_id="m1")
            await receiver.wait_for_many(1)
            await services.do("stop", "kafka-1")

            await sender.say(you, "meanwhile", client_msg_id="m2")
            error = await sender.wait_for(lambda frame: frame["type"] == "error", seconds=4)
            assert (error["code"], error["client_msg_id"]) == (1005, "m2")
            for node in cluster.nodes:
                status, checks = await _ready(node)
                assert status == 503 and checks["broker"] != "ok" and checks["store"] == "ok"
            assert [message["content"] for message in await history(two, me, you)] == ["before"]
            await sender.ping()
            async with login(one, new_user()):
                pass

            await services.do("restart", "kafka-1")
            for node in cluster.nodes:
                await _until_ready(node)
            await sender.say(you, "meanwhile", client_msg_id="m2")
            await sender.wait_for(lambda frame: frame["type"] == "ack" and frame["client_msg_id"] == "m2", seconds=20)
            await sender.say(you, "after", client_msg_id="m3")
            await receiver.wait_for(lambda frame: frame.get("content") == "after", seconds=30)
            got = [(message["seq"], message["content"]) for message in receiver.messages]
            assert got == [(1, "before"), (2, "meanwhile"), (3, "after")]
            for node in cluster.nodes:
                assert node.log.read_text().count("aiokafka") < 60, "an outage does not fill the log"


@pytest.mark.drill
async def test_kafka_is_away_under_load(services: OwnServices, tmp_path: Path) -> None:
    with cluster_of(3, tmp_path, services.places) as cluster:
        drill = Drill(cluster)
        async with drill.going_on():
            await services.do("kill", "kafka-1")
            await services.do("restart", "kafka-1")
            await drill.sent(more=300, seconds=60)
        assert {person.client.connects for person in drill.people} == {1}, "no connection had to end for that"


@pytest.mark.drill
async def test_redis_is_away_under_load(services: OwnServices, tmp_path: Path) -> None:
    with cluster_of(3, tmp_path, services.places) as cluster:
        drill = Drill(cluster)
        async with drill.going_on():
            await services.do("stop", "redis")
            # How long it is away is the drill: nodes and leases run out meanwhile.
            await asyncio.sleep(REDIS_AWAY)
            await drill.sent()
            await services.do("restart", "redis")
            await _until_complete(cluster)
        assert {person.client.connects for person in drill.people} == {1}, "no connection had to end for that"


@pytest.mark.drill
async def test_a_user_can_log_in_while_redis_is_away(services: OwnServices, tmp_path: Path) -> None:
    me, you = new_user(), new_user()
    with cluster_of(2, tmp_path, services.places) as cluster:
        await services.do("stop", "redis")
        async with login(cluster.nodes[0], me) as sender, login(cluster.nodes[1], you) as receiver:
            await sender.say(you, "without Redis")
            await receiver.wait_for_many(1)


@pytest.mark.drill
async def test_redis_comes_back_without_its_data(services: OwnServices, tmp_path: Path) -> None:
    """The nodes write down again where everybody is, and nobody misses what was said meanwhile."""
    me, you = new_user(), new_user()
    with cluster_of(2, tmp_path, services.places) as cluster:
        async with login(cluster.nodes[0], me) as sender, login(cluster.nodes[1], you) as receiver:
            await services.do("kill", "redis")
            await services.do("restart", "redis")
            await sender.say(you, "who is where?")
            await receiver.wait_for_many(1)
            await eventually(lambda: len(known_nodes(cluster.nodes[0])) == 2)
            await sender.say(you, "there")
            await receiver.wait_for_many(2)


@pytest.mark.drill
async def test_postgres_restarts_under_load(services: OwnServices, tmp_path: Path) -> None:
    with cluster_of(3, tmp_path, services.places) as cluster:
        drill = Drill(cluster)
        async with drill.going_on():
            await services.do("stop", "postgres")
            for node in cluster.nodes:
                assert (await _ready(node))[0] == 503
            await drill.sent(more=100)  # Kafka keeps what is accepted
            await services.do("restart", "postgres")
            for node in cluster.nodes:
                await _until_ready(node)
            await drill.sent(more=300)


@pytest.mark.drill
async def test_postgres_is_killed_under_load(services: OwnServices, tmp_path: Path) -> None:
    with cluster_of(3, tmp_path, services.places) as cluster:
        drill = Drill(cluster)
        async with drill.going_on():
            await services.do("kill", "postgres")
            await services.do("restart", "postgres")
            for node in cluster.nodes:
                await _until_ready(node)
            await drill.sent(more=300)
