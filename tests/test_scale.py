"""The measurements of how a cluster grows: each part works, in sizes too small to mean anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.costs import Costs
from benchmarks.scale.model import BATCH, Cluster, Setup, ceilings
from benchmarks.scale.simulation import Lock, Process, Server, Simulation

ROOT = Path(__file__).resolve().parent.parent


def run_part(part: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.scale", "--tiny", "--json", "--part", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    tables: list[dict[str, Any]] = json.loads(done.stdout)["tables"]
    return tables


def table(tables: list[dict[str, Any]], start: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]]
    (found,) = [one["rows"] for one in tables if one["title"].startswith(start)]
    return found


@pytest.fixture
def services(redis_url: str, kafka_servers: str, postgres_url: str) -> None:
    """All three are there."""


@pytest.mark.drill
@pytest.mark.redis
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(200)
class TestWithServices:
    def test_the_directory_is_measured(self, services: None) -> None:
        tables = run_part("directory")
        (leases,) = table(tables, "Leases: ")
        assert (leases["users"], leases["nodes"]) == (20, 3)
        assert leases["renewals/s"] == 1.0
        assert [row["batch"] for row in table(tables, "Look-ups")] == [1, 5]

    def test_a_group_costs_a_record_for_each_other_node_that_holds_a_member(self, services: None) -> None:
        rows = table(run_part("fanout"), "A group's message of")
        records = {
            (row["members"], row["nodes"]): row["inbox records/message"] for row in rows if row["messages/batch"] == 1
        }
        assert records == {(2, 1): 0, (10, 1): 0, (2, 3): 1, (10, 3): 2}

    def test_both_stores_are_measured(self, services: None) -> None:
        rows = table(run_part("rows"), "Cursors")
        assert [(row["store"], row["rows"]) for row in rows] == [
            ("SQLite", 1),
            ("SQLite", 5),
            ("PostgreSQL", 1),
            ("PostgreSQL", 5),
        ]

    def test_real_nodes_are_measured(self, services: None) -> None:
        tables = run_part("nodes")
        rows = table(tables, "Messages of pairs over real nodes")
        assert [row["nodes"] for row in rows] == [1, 2]
        assert all(row["nodes us"] > 0 for row in rows)
        assert [row["role"] for row in table(tables, "The same")] == ["stores", "has the users"]


def test_the_model_needs_no_services() -> None:
    tables = run_part("model")
    assert {row["step"] for row in table(tables, "What the model is fed with")} >= {"accept", "store", "kafka"}


# --- the simulation


def test_a_server_serves_one_after_the_other() -> None:
    simulation = Simulation()
    server = Server(simulation, 1)
    assert [server.use(2.0), server.use(3.0)] == [2.0, 5.0]


def test_a_server_with_two_workers_serves_two_at_once() -> None:
    simulation = Simulation()
    server = Server(simulation, 2)
    assert [server.use(2.0), server.use(3.0), server.use(1.0)] == [2.0, 3.0, 3.0]


def test_a_lock_goes_to_who_came_first() -> None:
    simulation, done = Simulation(), []
    lock = Lock(simulation)

    def process(name: str) -> Process:
        yield from lock.take()
        yield 1.0
        done.append((name, simulation.now))
        lock.release()

    for name in ("a", "b", "c"):
        simulation.start(process(name))
    simulation.run(10.0)
    assert done == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


def test_a_cluster_does_what_it_is_offered_while_nothing_is_busy_all_the_time() -> None:
    setup = Setup(3)
    rate = min(ceilings(Costs(), setup, 50).values()) / 2
    assert Cluster(Costs(), setup, rate).run(4.0).done == pytest.approx(rate, rel=0.1)


def test_one_partition_does_no_more_than_one_node_can_store() -> None:
    setup = Setup(10, partitions=1)
    one_loop = ceilings(Costs(), setup, BATCH)["storing loops"]
    assert Cluster(Costs(), setup, 3 * one_loop).run(3.0).done <= 1.1 * one_loop


def test_users_elsewhere_are_counted_as_often_as_there_are_nodes_to_tell() -> None:
    assert [Setup(nodes, across=True).elsewhere() for nodes in (1, 2, 4)] == [0.0, 1.0, 1.5]
    assert Setup(2).elsewhere() == 0.75  # both here, both there, one here and one there twice
