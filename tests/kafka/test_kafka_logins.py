"""How often a user may be logged in is counted over all nodes together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from kafka_cluster import Cluster, Places, cluster_of, known_nodes, login, name_of, new_user
from support import NodeProcess, eventually
from websockets.exceptions import InvalidStatus

pytestmark = [pytest.mark.kafka, pytest.mark.heavy]


@pytest.fixture
def pair(places: Places, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes with the settings that the test names."""
    with cluster_of(2, tmp_path / "pair", places, **request.param) as cluster:
        yield cluster


async def _status(node: NodeProcess, user_id: str) -> int:
    """101 for a login that is let in, or the HTTP status of the refusal."""
    try:
        async with login(node, user_id):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def _until_let_in(node: NodeProcess, user_id: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while await _status(node, user_id) != 101:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("pair", [{"KAMA_LIMITS__MULTI_LOGIN": "replace"}], indirect=True, ids=["replace"])
async def test_a_login_replaces_the_one_on_another_node(pair: Cluster) -> None:
    me = new_user()
    async with login(pair.nodes[0], me) as old, login(pair.nodes[1], me) as new:
        code, _ = await old.wait_for_close()
        assert code == 4001
        await new.ping()
        assert new.closed is None


@pytest.mark.parametrize("pair", [{"KAMA_LIMITS__MULTI_LOGIN": "reject"}], indirect=True, ids=["reject"])
async def test_a_login_is_refused_while_there_is_one_on_another_node(pair: Cluster) -> None:
    me = new_user()
    async with login(pair.nodes[0], me) as old:
        assert await _status(pair.nodes[1], me) == 403
        await old.ping()
    await _until_let_in(pair.nodes[1], me, seconds=5)


@pytest.mark.parametrize("pair", [{"KAMA_LIMITS__CONNECTIONS_PER_USER": "3"}], indirect=True, ids=["three"])
async def test_connections_per_user_counts_those_on_all_nodes(pair: Cluster) -> None:
    me = new_user()
    async with AsyncExitStack() as stack:
        for node in (pair.nodes[0], pair.nodes[1], pair.nodes[0]):
            await stack.enter_async_context(login(node, me))
        for node in pair.nodes:
            assert await _status(node, me) == 429


@pytest.mark.parametrize("pair", [{"KAMA_LIMITS__MULTI_LOGIN": "reject"}], indirect=True, ids=["reject"])
async def test_a_killed_node_does_not_keep_its_users_out(pair: Cluster) -> None:
    """Its leases go with it: long before they run out by themselves."""
    me = new_user()
    doomed, other = pair.nodes
    async with login(doomed, me, frozen=True):
        await eventually(lambda: known_nodes(other)[name_of(doomed)]["connections"] == 1)
        doomed.kill()
        await _until_let_in(other, me, seconds=20)


@pytest.mark.parametrize("pair", [{"KAMA_LIMITS__MULTI_LOGIN": "reject"}], indirect=True, ids=["reject"])
async def test_a_node_that_was_killed_and_is_back_does_not_keep_its_users_out(pair: Cluster) -> None:
    me = new_user()
    doomed, other = pair.nodes
    async with login(doomed, me, frozen=True):
        doomed.kill()
        await asyncio.to_thread(doomed.start)
        await _until_let_in(other, me, seconds=10)
