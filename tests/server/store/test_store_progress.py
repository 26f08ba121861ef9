"""ProgressStore: statuses and cursors that never go back, however often and however late they are written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_builders import SQL_ALONE, THROUGH_A_DATABASE, Loop, build_record, build_stored, progress_in, written_to
from sqlalchemy import select

from kama.protocol import MessageStatus
from kama.server.message_back import MessageBack, message_back
from kama.server.store.database import Database
from kama.server.store.groups import GroupStore
from kama.server.store.messages import MessageStore
from kama.server.store.progress import Position, Progress, ProgressStore, StatusChange, sent_to
from kama.server.store.schema import cursors
from kama.server.store.schema import messages as table

SENT, DELIVERED, READ = MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ


async def statuses_of(database: Database, conversation: str = "U1_U2") -> list[int]:
    async with database.read() as connection:
        query = select(table.c.status).where(table.c.conversation == conversation).order_by(table.c.seq)
        return list((await connection.execute(query)).scalars())


async def cursors_of(database: Database) -> dict[tuple[str, str], tuple[int, int, int]]:
    async with database.read() as connection:
        return {(row[0], row[1]): (row[2], row[3], row[4]) for row in await connection.execute(select(cursors))}


async def insert(messages: MessageStore, *pairs: tuple[str, str]) -> list[MessageBack]:
    batch = await messages.insert_batch([build_record(*pair) for pair in pairs])
    return [back for back in batch.backs if back is not None]


def receipt(user: str, conversation: str, seq: int, status: MessageStatus) -> Progress:
    levels = [seq if level < status else 0 for level in range(3)]
    return Progress(cursors={(user, conversation): levels}, receipts={(user, conversation, status): seq})


async def test_a_written_message_is_sent(messages: MessageStore, progress: ProgressStore, database: Database) -> None:
    first, second = await insert(messages, ("U1", "U2"), ("U1", "U2"))
    changes, _ = await progress.apply(written_to("U2", first))
    assert await statuses_of(database) == [1, 0]
    assert changes == [StatusChange(first.uuid, "U1_U2", 1, "U1", False, SENT, "U2")]


@SQL_ALONE
async def test_a_status_that_rose_is_a_new_version_of_the_history(
    messages: MessageStore, progress: ProgressStore
) -> None:
    (back,) = await insert(messages, ("U1", "U2"))
    assert (await progress.apply(written_to("U2", back)))[1] == {"U1_U2": 2}
    assert await messages.head("U1_U2") == (1, 2)


async def test_the_time_of_sending_is_kept(messages: MessageStore, progress: ProgressStore, database: Database) -> None:
    """KamaChat defect 8: `send_at` was never set."""
    (back,) = await insert(messages, ("U1", "U2"))
    await progress.apply(written_to("U2", back))
    async with database.read() as connection:
        assert (await connection.execute(select(table.c.send_at))).scalar_one() > 1_600_000_000_000


@SQL_ALONE
async def test_a_uuid_that_was_never_stored_changes_nothing(progress: ProgressStore) -> None:
    """KamaChat defect 8: a call signal that is not stored has no row to mark."""
    assert await progress.apply(written_to("U2", message_back("U1_U2", build_stored(1)))) == ([], {})


async def test_a_receipt_covers_all_earlier_messages(
    messages: MessageStore, progress: ProgressStore, database: Database
) -> None:
    await insert(messages, ("U1", "U2"), ("U1", "U2"), ("U1", "U2"))
    changes, _ = await progress.apply(receipt("U2", "U1_U2", 2, DELIVERED))
    assert await statuses_of(database) == [2, 2, 0]
    assert [(change.seq, change.status, change.user_id) for change in changes] == [(1, 2, "U2"), (2, 2, "U2")]


async def test_a_receipt_leaves_ones_own_messages_alone(
    messages: MessageStore, progress: ProgressStore, database: Database
) -> None:
    await insert(messages, ("U1", "U2"), ("U2", "U1"), ("U1", "U2"))
    await progress.apply(receipt("U2", "U1_U2", 3, READ))
    assert await statuses_of(database) == [3, 0, 3]


async def test_a_receipt_for_notes_to_oneself_counts(
    messages: MessageStore, progress: ProgressStore, database: Database
) -> None:
    await insert(messages, ("U1", "U1"))
    await progress.apply(receipt("U1", "U1_U1", 1, READ))
    assert await statuses_of(database, "U1_U1") == [3]


async def test_a_receipt_of_somebody_without_a_part_changes_nothing(
    messages: MessageStore, progress: ProgressStore, database: Database
) -> None:
    await insert(messages, ("U1", "U2"))
    assert await progress.apply(receipt("U9", "U1_U2", 1, READ)) == ([], {})
    assert await statuses_of(database) == [0]
    assert ("U9", "U1_U2") not in await cursors_of(database)


async def test_a_late_delivered_does_not_undo_read(
    messages: MessageStore, progress: ProgressStore, database: Database
) -> None:
    (back,) = await insert(messages, ("U1", "U2"))
    await progress.apply(receipt("U2", "U1_U2", 1, READ))
    assert await progress.apply(receipt("U2", "U1_U2", 1, DELIVERED)) == ([], {})
    await progress.apply(written_to("U2", back))
    assert await statuses_of(database) == [3]


@SQL_ALONE
async def test_a_late_sent_is_no_change(messages: MessageStore, progress: ProgressStore) -> None:
    (back,) = await insert(messages, ("U1", "U2"))
    await progress.apply(receipt("U2", "U1_U2", 1, READ))
    assert await progress.apply(written_to("U2", back)) == ([], {})


async def test_delivered_and_read_in_one_batch_report_both(messages: MessageStore, progress: ProgressStore) -> None:
    await insert(messages, ("U1", "U2"), ("U1", "U2"))
    both = receipt("U2", "U1_U2", 2, DELIVERED)
    both.receipts["U2", "U1_U2", READ] = 1
    changes, _ = await progress.apply(both)
    assert {(change.seq, change.status) for change in changes} == {(1, 2), (2, 2), (1, 3)}


async def test_in_a_group_the_first_member_decides_and_each_has_a_cursor(
    groups: GroupStore, messages: MessageStore, progress: ProgressStore, database: Database
) -> None:
    await groups.create("G1", "U1", ["U2", "U3"], "")
    await insert(messages, ("U1", "G1"))
    first, _ = await progress.apply(receipt("U2", "G1", 1, READ))
    second, _ = await progress.apply(receipt("U3", "G1", 1, READ))
    assert [change.user_id for change in first] == ["U2"]
    assert second == []
    assert await cursors_of(database) == {("U1", "G1"): (0, 0, 0), ("U2", "G1"): (1, 1, 1), ("U3", "G1"): (1, 1, 1)}


async def test_more_marks_than_fit_one_statement_are_all_written(
    messages: MessageStore, progress: ProgressStore, database: Database
) -> None:
    backs = await insert(messages, *[("U1", "U2")] * 1100)
    changes, _ = await progress.apply(written_to("U2", *backs))
    assert len(changes) == 1100
    assert await statuses_of(database) == [1] * 1100


async def test_moving_cursors_alone_is_no_change_of_the_history(
    messages: MessageStore, progress: ProgressStore
) -> None:
    await insert(messages, ("U1", "U2"))
    assert await progress.apply(Progress(cursors={("U2", "U1_U2"): [1, 0, 0]})) == ([], {})
    assert await messages.head("U1_U2") == (1, 1)


async def test_positions_say_how_far_a_user_is_in_each_conversation(
    messages: MessageStore, progress: ProgressStore
) -> None:
    await insert(messages, ("U1", "U2"), ("U1", "U2"), ("U3", "U1"))
    await progress.apply(Progress(cursors={("U1", "U1_U2"): [1, 0, 0]}))
    assert await progress.positions("U1") == [Position("U1_U2", 1, 2), Position("U1_U3", 0, 1)]
    assert await progress.positions("U9") == []


@pytest.mark.parametrize(("user", "expected"), [("U1", True), ("U2", True), ("U3", False)])
async def test_only_the_two_of_a_pair_have_a_part_in_it(
    messages: MessageStore, progress: ProgressStore, user: str, expected: bool
) -> None:
    await insert(messages, ("U1", "U2"))
    assert await progress.is_participant(user, "U1_U2") is expected


def test_an_empty_progress_is_false_and_any_other_is_true() -> None:
    assert not Progress()
    assert written_to("U1", message_back("U1_U2", build_stored(1)))
    assert Progress(cursors={("U1", "c"): [0, 0, 0]})
    assert Progress(receipts={("U1", "c", READ): 1})


# --- any order of marks and receipts

COUNT = 6
marks = st.lists(
    st.tuples(st.sampled_from(["U1", "U2"]), st.integers(1, COUNT), st.sampled_from([SENT, DELIVERED, READ])),
    min_size=1,
    max_size=5,
)


def test_nothing_ever_goes_back_and_twice_is_once(loop: Loop) -> None:
    @settings(THROUGH_A_DATABASE, max_examples=50)
    @given(st.lists(marks, max_size=6))
    def check(batches: list[list[tuple[str, int, MessageStatus]]]) -> None:
        loop.run_on_empty(apply_and_compare(loop, batches))

    check()


async def apply_and_compare(loop: Loop, batches: list[list[Any]]) -> None:
    progress = progress_in(loop.database)
    backs = await insert(loop.messages, *[("U1", "U2"), ("U2", "U1")] * (COUNT // 2))
    before_statuses, before_cursors = await statuses_of(loop.database), await cursors_of(loop.database)
    for batch in batches:
        given_progress = progress_of(batch, backs)
        changes, _ = await progress.apply(given_progress)
        statuses, seqs = await statuses_of(loop.database), await cursors_of(loop.database)
        assert all(new >= old for new, old in zip(statuses, before_statuses, strict=True))
        for key, (sent, delivered, read) in seqs.items():
            assert sent >= delivered >= read
            assert all(new >= old for new, old in zip(seqs[key], before_cursors[key], strict=True))
        risen = {seq for seq in range(1, COUNT + 1) if statuses[seq - 1] > before_statuses[seq - 1]}
        assert {change.seq for change in changes} == risen
        head = await loop.messages.head("U1_U2")
        assert await progress.apply(given_progress) == ([], {})
        assert (await statuses_of(loop.database), await cursors_of(loop.database)) == (statuses, seqs)
        assert await loop.messages.head("U1_U2") == head
        before_statuses, before_cursors = statuses, seqs


def progress_of(batch: list[Any], backs: list[MessageBack]) -> Progress:
    """As StatusWriter gathers it: who has read has received, and who has received was sent."""
    progress = Progress()
    for user, seq, status in batch:
        levels = progress.cursors.setdefault((user, "U1_U2"), [0, 0, 0])
        for level in range(status):
            levels[level] = max(levels[level], seq)
        if status == SENT:
            progress.sent.append(sent_to(user, backs[seq - 1]))
        else:
            key = (user, "U1_U2", status)
            progress.receipts[key] = max(seq, progress.receipts.get(key, 0))
    return progress


def test_what_was_sent_and_what_was_received_are_one_move_of_a_cursor() -> None:
    progress = Progress(
        cursors={("U1", "c"): [2, 2, 1], ("U2", "c"): [5, 5, 0]},
        pushed={"c": {"U1": 4, "U2": 3, "U3": 7}},
    )
    assert sorted(progress.moves) == [("U1", "c", 4, 2, 1), ("U2", "c", 5, 5, 0), ("U3", "c", 7, 0, 0)]
