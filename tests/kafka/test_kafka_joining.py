"""A node that has just started is one of them from its first login on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_cluster import Cluster, Places, act, cluster_of, create_group, login, new_group, new_user

pytestmark = [pytest.mark.kafka, pytest.mark.heavy]


@pytest.fixture
def single(places: Places, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(1, tmp_path / "single", places) as cluster:
        yield cluster


async def test_a_user_on_a_new_node_gets_what_is_said_on_an_old_one(single: Cluster) -> None:
    me, you = new_user(), new_user()
    new = single.new_node()
    await asyncio.to_thread(new.start)
    async with login(single.nodes[0], me) as sender, login(new, you) as receiver:
        await sender.say(you, "you are new here")
        await receiver.wait_for_many(1)


async def test_a_new_node_is_told_what_changes_from_its_start_on(single: Cluster) -> None:
    """Nobody asks where a group is known: whoever has heard of the new node tells it, and nobody else."""
    me, you, group = new_user(), new_user(), new_group()
    await create_group(single.nodes[0], group, me)
    new = single.new_node()
    await asyncio.to_thread(new.start)
    async with login(new, you) as member:
        await member.say(group, "let me in", client_msg_id="first")
        await member.wait_for(lambda frame: frame["type"] == "error")
        await act(single.nodes[0], f"/admin/groups/{group}/members", {"add": [you]})
        async with asyncio.timeout(10):
            while not member.messages:
                await member.say(group, "thank you")
                await asyncio.sleep(0.2)


async def test_a_user_on_a_node_that_is_back_gets_what_is_said_on_another(single: Cluster) -> None:
    me, you = new_user(), new_user()
    await asyncio.to_thread(single.start, 1)
    back = single.nodes[1]
    back.kill()
    await asyncio.to_thread(back.start)
    async with login(single.nodes[0], me) as sender, login(back, you) as receiver:
        await sender.say(you, "you are back")
        await receiver.wait_for_many(1, seconds=20)


async def test_nobody_has_to_wait_for_a_third_node_to_be_known(places: Places, tmp_path: Path) -> None:
    """Those who have others to tell ask about whom they do not know yet."""
    me, you = new_user(), new_user()
    with cluster_of(2, tmp_path / "pair", places) as pair:
        third = pair.new_node()
        await asyncio.to_thread(third.start)
        async with login(pair.nodes[0], me) as sender, login(third, you) as receiver:
            await sender.say(you, "you are new here")
            await receiver.wait_for_many(1, seconds=5)
