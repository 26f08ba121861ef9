"""Membership: from memory, and never the members of before a change."""

from __future__ import annotations

import asyncio

import pytest

from kama.server.membership import Membership
from kama.server.store.groups import GroupStore
from kama.server.tasks import spawn


class Groups:
    """A store of groups whose look-ups can be held up."""

    def __init__(self, **groups: set[str]) -> None:
        self.groups = groups
        self.loads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, group_id: str) -> frozenset[str] | None:
        self.loads += 1
        found = self.groups.get(group_id)
        seen = None if found is None else frozenset(found)
        await self.gate.wait()
        return seen


async def test_a_group_is_read_once() -> None:
    groups = Groups(G1={"U1", "U2"})
    membership = Membership(groups.load)
    for _ in range(3):
        assert await membership.members("G1") == {"U1", "U2"}
    assert groups.loads == 1


async def test_what_is_known_is_told_without_asking_the_store() -> None:
    groups = Groups(G1={"U1"})
    membership = Membership(groups.load)
    assert membership.known("G1") is None
    await membership.members("G1")
    assert membership.known("G1") == {"U1"}
    membership.forget("G1")
    assert membership.known("G1") is None
    assert groups.loads == 1


async def test_a_group_that_is_not_there_is_asked_for_again() -> None:
    groups = Groups()
    membership = Membership(groups.load)
    assert await membership.members("G1") is None
    groups.groups["G1"] = {"U1"}
    assert await membership.members("G1") == {"U1"}


async def test_after_a_change_the_new_members_are_told() -> None:
    groups = Groups(G1={"U1"})
    membership = Membership(groups.load)
    await membership.members("G1")
    async with membership.change("G1"):
        groups.groups["G1"] = {"U1", "U2"}
    assert await membership.members("G1") == {"U1", "U2"}


async def test_what_is_read_during_a_change_is_not_kept() -> None:
    groups = Groups(G1={"U1", "U2"})
    membership = Membership(groups.load)
    async with membership.change("G1"):
        assert await membership.members("G1") == {"U1", "U2"}
        groups.groups["G1"] = {"U1"}
        assert await membership.members("G1") == {"U1"}
    assert await membership.members("G1") == {"U1"}


async def test_a_slow_look_up_from_before_a_change_is_not_kept() -> None:
    groups = Groups(G1={"U1", "U2"})
    membership = Membership(groups.load)
    groups.gate.clear()
    slow = spawn(membership.members("G1"), name="slow")
    await asyncio.sleep(0)
    async with membership.change("G1"):
        groups.groups["G1"] = {"U1"}
    groups.gate.set()
    await slow
    assert await membership.members("G1") == {"U1"}


async def test_of_two_changes_at_once_the_first_to_end_does_not_open_the_cache() -> None:
    groups = Groups(G1={"U1"})
    membership = Membership(groups.load)
    async with membership.change("G1"):
        async with membership.change("G1"):
            groups.groups["G1"] = {"U1", "U2"}
        assert await membership.members("G1") == {"U1", "U2"}
        groups.groups["G1"] = {"U3"}
    assert await membership.members("G1") == {"U3"}


async def test_a_change_that_fails_is_a_change_as_well() -> None:
    groups = Groups(G1={"U1"})
    membership = Membership(groups.load)
    await membership.members("G1")
    with pytest.raises(ZeroDivisionError):
        async with membership.change("G1"):
            groups.groups["G1"] = {"U2"}
            raise ZeroDivisionError
    assert await membership.members("G1") == {"U2"}
    assert not membership._changing


async def test_a_change_of_one_group_leaves_the_others_in_memory() -> None:
    groups = Groups(G1={"U1"}, G2={"U2"})
    membership = Membership(groups.load)
    await membership.members("G2")
    async with membership.change("G1"):
        pass
    await membership.members("G2")
    assert groups.loads == 1


async def test_a_group_that_changed_elsewhere_is_read_again() -> None:
    groups = Groups(G1={"U1"})
    membership = Membership(groups.load)
    await membership.members("G1")
    groups.groups["G1"] = {"U1", "U2"}
    membership.forget("G1")
    membership.forget("G2")
    assert await membership.members("G1") == {"U1", "U2"}


async def test_a_slow_look_up_from_before_a_change_elsewhere_is_not_kept() -> None:
    groups = Groups(G1={"U1", "U2"})
    membership = Membership(groups.load)
    groups.gate.clear()
    slow = spawn(membership.members("G1"), name="slow")
    await asyncio.sleep(0)
    groups.groups["G1"] = {"U1"}
    membership.forget("G1")
    groups.gate.set()
    await slow
    assert await membership.members("G1") == {"U1"}


async def test_with_the_real_store_nobody_is_told_the_members_of_before(groups: GroupStore) -> None:
    """Readers ask all the time while the group changes; none sees an old set after a newer one was committed."""
    membership = Membership(groups.member_ids)
    await groups.create("G1", "U1", [], "")
    done = False

    async def ask() -> None:
        while not done:
            await membership.members("G1")
            await asyncio.sleep(0)

    readers = [spawn(ask(), name="reader") for _ in range(3)]
    for number in range(2, 30):
        async with membership.change("G1"):
            await groups.change("G1", add=[f"U{number}"], remove=[])
        assert f"U{number}" in (await membership.members("G1") or ())
    done = True
    await asyncio.wait(readers)
