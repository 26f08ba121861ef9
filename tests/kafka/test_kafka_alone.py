"""A node over Kafka without Redis: it serves alone, and no second one starts beside it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kafka_cluster import Cluster, Places, history, login, new_user
from support import NodeProcess, postgres_database, text_message

pytestmark = pytest.mark.kafka


@pytest.fixture
def cluster(places: Places, tmp_path: Path) -> Iterator[Cluster]:
    """No node of it is started yet."""
    with postgres_database(places.postgres) as postgres_url:
        made = Cluster(tmp_path / "alone", Places(places.kafka, "", postgres_url), {})
        try:
            yield made
        finally:
            made.end()


def _start_in_vain(cluster: Cluster, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kama", "serve", "--port", "0", "--data-dir", str(folder)]
    environment = {**os.environ, **cluster.environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


async def test_a_node_without_redis_serves_alone(cluster: Cluster) -> None:
    me, you = new_user(), new_user()
    with cluster.new_node() as node:
        async with login(node, me) as sender, login(node, you) as receiver:
            await sender.say(you, client_msg_id="m1")
            await receiver.wait_for_many(1)
            await sender.wait_for(lambda frame: frame["type"] == "status")
        assert [message["status"] for message in await history(node, me, you)] == [1]


@pytest.mark.heavy
def test_a_second_node_without_redis_is_refused_and_told_the_setting(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.new_node():
        second = _start_in_vain(cluster, tmp_path / "second")
    assert second.returncode != 0
    assert "redis.url" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.heavy
@pytest.mark.drill
def test_a_node_without_redis_starts_again_after_a_kill(cluster: Cluster) -> None:
    """Kafka takes the killed one for a member until its session ends."""
    node: NodeProcess = cluster.new_node()
    with node:
        node.kill()
        node.start()


@pytest.mark.heavy
@pytest.mark.drill
def test_of_two_nodes_without_redis_that_start_at_once_one_serves(cluster: Cluster) -> None:
    nodes = [cluster.new_node() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        failures = [start.exception() for start in [pool.submit(node.start) for node in nodes]]
    (refused,) = [failure for failure in failures if failure is not None]
    assert "redis.url" in str(refused) and "Traceback" not in str(refused)
    (serving,) = [node for node, failure in zip(nodes, failures, strict=True) if failure is None]
    with httpx2.Client(base_url=serving.url, trust_env=False, verify=False) as client:
        assert client.get("/health/ready").status_code == 200


@pytest.mark.heavy
async def test_a_foreign_producer_whose_clock_runs_ahead_does_not_move_our_times(cluster: Cluster) -> None:
    """On a topic of somebody else's making, which has the producers' times, and across a restart."""
    me, you = new_user(), new_user()
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.places.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(cluster.topic, 1, 1)])
    await admin.close()
    node = cluster.new_node()
    with node:
        async with login(node, me) as receiver, AIOKafkaProducer(bootstrap_servers=cluster.places.kafka) as producer:
            ahead = int(time.time() + 3000) * 1000  # Kafka itself refuses more than an hour
            await producer.send_and_wait(cluster.topic, json.dumps(text_message(you, me)).encode(), timestamp_ms=ahead)
            foreign = (await receiver.wait_for_many(1))[0]
        node.signal(signal.SIGTERM)
        await asyncio.to_thread(node.wait)
        await asyncio.to_thread(node.start)
        async with login(node, me) as sender:
            await sender.say(you, "now", client_msg_id="m1")
            ours = await sender.wait_for(lambda frame: frame.get("content") == "now")
        assert ours["seq"] == foreign["seq"] + 1 and ours["created_at"] < foreign["created_at"]
