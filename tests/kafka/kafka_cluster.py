"""Nodes over Kafka as processes of their own, and what looks at them from outside."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import redis
from support import Frame, NodeProcess, Peer, bearer, postgres_database, service
from test_services import SERVICES, services_in, started_url

KAFKA = "KAMA_TEST_KAFKA_BOOTSTRAP_SERVERS"
REDIS = "KAMA_TEST_REDIS_URL"
POSTGRES = "KAMA_TEST_POSTGRES_URL"
# 0 is everybody's, 9 that of the directory's tests.
_REDIS_DATABASES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15)
_CLAIM = "kama:test:claimed"


# --- services ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where the services are."""

    kafka: str
    redis: str
    postgres: str


def shared_places() -> Places:
    """Those of this run. A full run must not do without them, another one skips what needs them."""
    return Places(*(service(variable) for variable in (KAFKA, REDIS, POSTGRES)))


@dataclass(frozen=True)
class OwnServices:
    """Servers that nobody else uses: they may be stopped, killed and paused."""

    environment: dict[str, str]
    places: Places

    async def do(self, verb: str, server: str) -> None:
        """As `scripts/services VERB SERVER`."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, SERVICES, verb, server],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def own_services(folder: Path, *, brokers: int = 1) -> Iterator[OwnServices]:
    """Skipped or failed where the shared ones are missing: what cannot be had once cannot be had twice."""
    shared_places()
    wanted = "kafka" if brokers == 1 else f"kafka={brokers}"
    with services_in(folder) as environment:
        places = Places(
            started_url(environment, wanted, KAFKA),
            started_url(environment, "redis", REDIS),
            started_url(environment, "postgres", POSTGRES),
        )
        yield OwnServices(environment, places)


@contextmanager
def redis_database(url: str) -> Iterator[str]:
    """A numbered database of a Redis that several tests may use at once, empty, and emptied after."""
    server = url.rpartition("/")[0]
    for number in _REDIS_DATABASES:
        with redis.Redis.from_url(f"{server}/{number}") as client:
            if client.set(_CLAIM, 1, nx=True, ex=900):
                try:
                    yield f"{server}/{number}"
                finally:
                    with contextlib.suppress(redis.ConnectionError):  # the test may have stopped it
                        client.flushdb()
                return
    pytest.fail("all of Redis' databases are in use")


@asynccontextmanager
async def connected_postgres(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


# --- nodes ---------------------------------------------------------------------------------------------


class Cluster:
    """Nodes that share a topic, a group, a Redis database and a PostgreSQL database which nobody else has."""

    def __init__(self, folder: Path, places: Places, settings: Mapping[str, str]) -> None:
        self.topic = f"t_{uuid.uuid4().hex}"
        self.group = f"g_{uuid.uuid4().hex}"
        self.places = places
        self._folder = folder
        self.environment = {
            "KAMA_NODE__MODE": "kafka",
            "KAMA_KAFKA__BOOTSTRAP_SERVERS": places.kafka,
            "KAMA_KAFKA__TOPIC": self.topic,
            "KAMA_KAFKA__GROUP": self.group,
            "KAMA_REDIS__URL": places.redis,
            "KAMA_STORE__URL": places.postgres,
            **settings,
        }
        self.nodes: list[NodeProcess] = []

    def new_node(self) -> NodeProcess:
        """Not started yet; it is ended with the cluster."""
        node = NodeProcess(self._folder / f"node-{len(self.nodes) + 1}", **self.environment)
        self.nodes.append(node)
        return node

    def start(self, count: int) -> None:
        """That many new nodes, until each knows all the others."""
        nodes = [self.new_node() for _ in range(count)]
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(NodeProcess.start, nodes))
        names = {name_of(node) for node in self.nodes}
        deadline = time.monotonic() + 20
        while any(set(known_nodes(node)) != names for node in nodes):
            assert time.monotonic() < deadline, "the nodes do not find each other"
            time.sleep(0.05)

    def end(self) -> None:
        for node in self.nodes:
            node.__exit__()


@contextmanager
def cluster_of(count: int, folder: Path, places: Places, **settings: str) -> Iterator[Cluster]:
    """A cluster of that many nodes; more may be added with `start`."""
    with redis_database(places.redis) as redis_url, postgres_database(places.postgres) as postgres_url:
        cluster = Cluster(folder, Places(places.kafka, redis_url, postgres_url), settings)
        try:
            cluster.start(count)
            yield cluster
        finally:
            cluster.end()


def login(node: NodeProcess, user_id: str, **options: Any) -> Peer:
    return Peer(node.url, user_id, **options)


def name_of(node: NodeProcess) -> str:
    """A node without a name of its own is called by its address."""
    return node.url.removeprefix("http://")


def known_nodes(node: NodeProcess) -> dict[str, Frame]:
    """The cluster as one node sees it."""
    headers = bearer("Uadmin", "admin")
    with httpx2.Client(base_url=node.url, trust_env=False, verify=False) as client:
        answer = client.get("/admin/nodes", headers=headers)
    return {info["name"]: info for info in answer.json()["data"]}


async def request(node: NodeProcess, method: str, path: str, **details: Any) -> httpx2.Response:
    # There is no TLS here, and reading the certificates takes longer than the request.
    async with httpx2.AsyncClient(base_url=node.url, trust_env=False, verify=False, timeout=10) as client:
        return await client.request(method, path, **details)


async def act(node: NodeProcess, path: str, body: Frame) -> Any:
    """What an administrator asks of a node; gives what it answers."""
    answer = await request(node, "POST", path, json=body, headers=bearer("Uadmin", "admin"))
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def create_group(node: NodeProcess, group_id: str, owner: str, *members: str) -> None:
    await act(node, "/admin/groups", {"group_id": group_id, "owner_id": owner, "members": list(members)})


async def history(node: NodeProcess, one: str, two: str) -> list[Frame]:
    params = {"userOneId": one, "userTwoId": two, "limit": "200"}
    answer = await request(node, "GET", "/message/getMessageList", params=params, headers=bearer(one))
    data: list[Frame] = answer.json()["data"]
    return data


def new_user() -> str:
    """Tests share a cluster, but no users."""
    return f"U{uuid.uuid4().hex[:12]}"


def new_group() -> str:
    return f"G{uuid.uuid4().hex[:12]}"
