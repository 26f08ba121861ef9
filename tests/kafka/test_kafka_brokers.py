"""Three brokers, of which one is lost for a while: what was acknowledged is on the other two."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_cluster import Cluster, OwnServices, cluster_of
from kafka_drill import Drill

pytestmark = [pytest.mark.kafka, pytest.mark.drill, pytest.mark.timeout(200)]

PAUSE = 15.0


@pytest.fixture
def cluster(three_brokers: OwnServices, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(3, tmp_path, three_brokers.places, KAMA_KAFKA__REPLICATION_FACTOR="3") as made:
        yield made


async def test_a_broker_is_killed_and_comes_back(three_brokers: OwnServices, cluster: Cluster) -> None:
    drill = Drill(cluster)
    async with drill.going_on():
        await three_brokers.do("kill", "kafka-2")
        await drill.sent(more=300, seconds=60)
        await three_brokers.do("restart", "kafka-2")
        await drill.sent(more=300, seconds=60)
    assert {person.client.connects for person in drill.people} == {1}, "no connection had to end for that"


async def test_a_broker_hangs_for_a_while(three_brokers: OwnServices, cluster: Cluster) -> None:
    drill = Drill(cluster)
    async with drill.going_on():
        await three_brokers.do("pause", "kafka-1")
        # How long it hangs is the drill: the others notice, and elect another leader.
        await asyncio.sleep(PAUSE)
        await three_brokers.do("resume", "kafka-1")
        await drill.sent(more=300, seconds=60)
    assert {person.client.connects for person in drill.people} == {1}, "no connection had to end for that"
