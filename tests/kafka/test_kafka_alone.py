"""A node over Kafka without Redis: it serves alone, and no second one starts beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from kafka_cluster import Cluster, Places, history, login, new_user, postgres_database
from support import NodeProcess

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
def test_a_node_without_redis_starts_again_after_a_kill(cluster: Cluster) -> None:
    """Kafka takes the killed one for a member until its session ends."""
    node: NodeProcess = cluster.new_node()
    with node:
        node.kill()
        node.start()


@pytest.mark.heavy
def test_of_two_nodes_without_redis_that_start_at_once_one_serves(cluster: Cluster) -> None:
    nodes = [cluster.new_node() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        failures = [start.exception() for start in [pool.submit(node.start) for node in nodes]]
    (refused,) = [failure for failure in failures if failure is not None]
    assert "redis.url" in str(refused) and "Traceback" not in str(refused)
    (serving,) = [node for node, failure in zip(nodes, failures, strict=True) if failure is None]
    with httpx2.Client(base_url=serving.url, trust_env=False, verify=False) as client:
        assert client.get("/health/ready").status_code == 200
