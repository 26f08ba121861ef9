"""GroupStore: who is in a group, and from which message on."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_builders import THROUGH_A_DATABASE, Loop, build_record
from sqlalchemy import select

from kama.errors import BadParameter, NoSuchGroup
from kama.server.store.database import Database
from kama.server.store.groups import Group, GroupStore, Role
from kama.server.store.messages import MessageStore
from kama.server.store.progress import ProgressStore
from kama.server.store.schema import cursors


def ids_in(group: Group) -> list[str]:
    return [member.user_id for member in group.members]


async def cursor_owners(database: Database, group_id: str) -> set[str]:
    async with database.read() as connection:
        query = select(cursors.c.user_id).where(cursors.c.conversation == group_id)
        return set((await connection.execute(query)).scalars())


async def test_a_new_group_has_its_owner_and_members(groups: GroupStore) -> None:
    group = await groups.create("G1", "U1", ["U3", "U2", "U2"], "Friends")
    assert (group.group_id, group.name, group.owner_id, group.member_count) == ("G1", "Friends", "U1", 3)
    assert [(member.user_id, member.role) for member in group.members] == [
        ("U1", Role.OWNER),
        ("U2", Role.MEMBER),
        ("U3", Role.MEMBER),
    ]


async def test_the_owner_among_the_members_is_in_once(groups: GroupStore) -> None:
    assert ids_in(await groups.create("G1", "U1", ["U1", "U2"], "")) == ["U1", "U2"]


async def test_a_group_id_is_given_out_once(groups: GroupStore) -> None:
    await groups.create("G1", "U1", [], "first")
    with pytest.raises(BadParameter, match="expected a new group id, got G1"):
        await groups.create("G1", "U2", [], "second")
    assert (await groups.get("G1")).name == "first"


async def test_a_dissolved_groups_id_is_not_given_out_again(groups: GroupStore) -> None:
    await groups.create("G1", "U1", [], "")
    await groups.dissolve("G1")
    with pytest.raises(BadParameter, match="was dissolved"):
        await groups.create("G1", "U1", [], "")


async def test_two_who_make_the_same_group_at_once_get_one(groups: GroupStore) -> None:
    made = await asyncio.gather(
        groups.create("G1", "U1", [], ""), groups.create("G1", "U2", [], ""), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in made) == ["BadParameter", "Group"]


async def test_a_change_says_who_really_came_and_went(groups: GroupStore) -> None:
    await groups.create("G1", "U1", ["U2", "U3"], "")
    assert await groups.change("G1", add=["U3", "U5", "U4"], remove=["U2", "U9"]) == (["U4", "U5"], ["U2"])
    assert ids_in(await groups.get("G1")) == ["U1", "U3", "U4", "U5"]


async def test_who_is_added_and_removed_at_once_is_out(groups: GroupStore) -> None:
    await groups.create("G1", "U1", ["U2"], "")
    assert await groups.change("G1", add=["U2", "U3"], remove=["U2", "U3"]) == ([], ["U2"])


async def test_the_owner_cannot_be_removed(groups: GroupStore) -> None:
    await groups.create("G1", "U1", ["U2"], "")
    with pytest.raises(BadParameter, match="got U1, the owner"):
        await groups.change("G1", add=["U3"], remove=["U1", "U2"])
    assert ids_in(await groups.get("G1")) == ["U1", "U2"]


async def test_a_new_member_starts_after_what_was_said_before(
    groups: GroupStore, messages: MessageStore, progress: ProgressStore
) -> None:
    await groups.create("G1", "U1", [], "")
    await messages.insert_batch([build_record("U1", "G1"), build_record("U1", "G1")])
    await groups.change("G1", add=["U2"], remove=[])
    await messages.insert_batch([build_record("U1", "G1")])
    assert [(at.conversation, at.sent_seq, at.last_seq) for at in await progress.positions("U2")] == [("G1", 2, 3)]


async def test_who_comes_back_starts_where_the_group_is_now(
    groups: GroupStore, messages: MessageStore, progress: ProgressStore
) -> None:
    await groups.create("G1", "U1", ["U2"], "")
    await groups.change("G1", add=[], remove=["U2"])
    await messages.insert_batch([build_record("U1", "G1")])
    await groups.change("G1", add=["U2"], remove=[])
    assert [at.sent_seq for at in await progress.positions("U2")] == [1]


async def test_who_left_has_no_cursor(groups: GroupStore, database: Database) -> None:
    await groups.create("G1", "U1", ["U2", "U3"], "")
    await groups.change("G1", add=[], remove=["U2"])
    assert await cursor_owners(database, "G1") == {"U1", "U3"}


async def test_the_first_message_to_a_group_keeps_the_members_cursors(
    groups: GroupStore, messages: MessageStore, database: Database
) -> None:
    await groups.create("G1", "U1", ["U2"], "")
    batch = await messages.insert_batch([build_record("U1", "G1")])
    assert batch.outcomes[0].seq == 1
    assert await cursor_owners(database, "G1") == {"U1", "U2"}


async def test_a_dissolved_group_is_gone(groups: GroupStore, database: Database) -> None:
    await groups.create("G1", "U1", ["U2"], "")
    await groups.dissolve("G1")
    assert await groups.member_ids("G1") is None
    assert await groups.page(10) == []
    assert await cursor_owners(database, "G1") == set()
    with pytest.raises(NoSuchGroup):
        await groups.get("G1")


@pytest.mark.parametrize("dissolved", [False, True])
async def test_nothing_can_be_done_with_a_group_that_is_not_there(groups: GroupStore, dissolved: bool) -> None:
    if dissolved:
        await groups.create("G1", "U1", [], "")
        await groups.dissolve("G1")
    for refused in (groups.change("G1", ["U2"], []), groups.dissolve("G1"), groups.get("G1")):
        with pytest.raises(NoSuchGroup, match="there is no group G1"):
            await refused


async def test_groups_come_in_pages_in_the_order_of_their_ids(groups: GroupStore) -> None:
    for number in (3, 1, 2):
        await groups.create(f"G{number}", "U1", ["U2"][: number - 1], f"name {number}")
    first = await groups.page(2)
    assert [(group.group_id, group.member_count) for group in first] == [("G1", 1), ("G2", 2)]
    assert [group.group_id for group in await groups.page(2, after="G2")] == ["G3"]


async def test_a_large_group_can_be_made_and_dissolved(groups: GroupStore) -> None:
    everybody = [f"U{number}" for number in range(1, 1300)]
    assert (await groups.create("G1", "U0", everybody, "")).member_count == 1300
    await groups.dissolve("G1")
    assert await groups.member_ids("G1") is None


users = st.sets(st.sampled_from(["U2", "U3", "U4"]))
SLOW = settings(THROUGH_A_DATABASE, max_examples=40)


def test_any_changes_end_with_the_right_members_and_one_cursor_each(loop: Loop) -> None:
    @SLOW
    @given(st.lists(st.tuples(users, users), max_size=6))
    def check(changes: list[tuple[set[str], set[str]]]) -> None:
        loop.run_on_empty(change_and_compare(loop.database, changes))

    check()


async def change_and_compare(database: Database, changes: list[tuple[set[str], set[str]]]) -> None:
    groups = GroupStore(database)
    await groups.create("G1", "U1", [], "")
    members = {"U1"}
    for add, remove in changes:
        added, removed = await groups.change("G1", add, remove)
        assert set(added) == add - remove - members
        assert set(removed) == remove & members
        members = (members | add) - remove
        assert await groups.member_ids("G1") == members
        assert await cursor_owners(database, "G1") == members
