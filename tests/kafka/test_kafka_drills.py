"""Nodes come and go under load: nothing acknowledged is lost, nothing is stored or shown twice or out of order."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import pytest
from kafka_cluster import Cluster, Places, cluster_of, known_nodes, name_of
from kafka_drill import PEOPLE, Drill
from support import NodeProcess, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.heavy, pytest.mark.timeout(120)]


def _has_partitions(node: NodeProcess) -> bool:
    assigned = re.findall(r'"partitions": ?\[([\d, ]*)\]', node.log.read_text())
    return bool(assigned and assigned[-1])


async def _forgotten(node: NodeProcess, by: NodeProcess, seconds: float) -> None:
    await eventually(lambda: name_of(node) not in known_nodes(by), seconds)


async def _all_counted(cluster: Cluster, connections: int) -> None:
    """No ghosts: the cluster counts as many connections as there are."""
    await eventually(
        lambda: sum(info["connections"] for info in known_nodes(cluster.nodes[0]).values()) == connections, 15
    )


async def test_a_node_is_killed_and_comes_back(places: Places, tmp_path: Path) -> None:
    with cluster_of(3, tmp_path, places) as cluster:
        drill = Drill(cluster)
        other, doomed, _ = cluster.nodes
        async with drill.going_on():
            await asyncio.to_thread(doomed.kill)
            await _forgotten(doomed, by=other, seconds=20)
            await asyncio.to_thread(doomed.start)
            await eventually(lambda: _has_partitions(doomed), 20)
            await _all_counted(cluster, PEOPLE)
        assert drill.people[1].client.connects == 2, "the kill reached those who were there"


@pytest.mark.drill
async def test_a_node_is_killed_and_comes_back_at_once(places: Places, tmp_path: Path) -> None:
    """Before anybody noticed: the others take it for what it was, until Redis tells them."""
    with cluster_of(3, tmp_path, places) as cluster:
        drill = Drill(cluster)
        async with drill.going_on():
            await asyncio.to_thread(cluster.nodes[1].kill)
            await asyncio.to_thread(cluster.nodes[1].start)
            await _all_counted(cluster, PEOPLE)


async def test_a_node_joins(places: Places, tmp_path: Path) -> None:
    with cluster_of(3, tmp_path, places) as cluster:
        drill = Drill(cluster)
        async with drill.going_on():
            fourth = cluster.new_node()
            await asyncio.to_thread(fourth.start)
            for person in drill.people[:3]:
                await drill.add_device(person, fourth)
            await eventually(lambda: _has_partitions(fourth), 20)
            await _all_counted(cluster, PEOPLE + 3)


@pytest.mark.drill
async def test_a_node_is_drained_and_comes_back(places: Places, tmp_path: Path) -> None:
    with cluster_of(3, tmp_path, places) as cluster:
        drill = Drill(cluster)
        other, drained, _ = cluster.nodes
        async with drill.going_on():
            drained.signal(signal.SIGTERM)
            await asyncio.to_thread(drained.wait)
            await _forgotten(drained, by=other, seconds=5)
            await drill.sent()
            await asyncio.to_thread(drained.start)
            await eventually(lambda: _has_partitions(drained), 20)
            await _all_counted(cluster, PEOPLE)


@pytest.mark.drill
async def test_a_node_hangs_for_a_while(places: Places, tmp_path: Path) -> None:
    """The others give it up, and it does not know: what it has in hand was stored by another one meanwhile."""
    with cluster_of(3, tmp_path, places) as cluster:
        drill = Drill(cluster)
        other, hanging, _ = cluster.nodes
        async with drill.going_on():
            hanging.signal(signal.SIGSTOP)
            await _forgotten(hanging, by=other, seconds=20)
            hanging.signal(signal.SIGCONT)
            await _all_counted(cluster, PEOPLE)
        assert drill.people[1].client.connects == 1, "its connections stayed open all the while"
