"""MessageStore: seqs without a gap, one row per message however often it comes, history in order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_builders import NOON_MS, POSTGRES, SQL_ALONE, THROUGH_A_DATABASE, Loop, build_record, written_to
from sqlalchemy import select

from kama.protocol import Message, MessageStatus, MessageType, conversation_id, local_time
from kama.server.broker import Record
from kama.server.store.database import Database
from kama.server.store.groups import GroupStore
from kama.server.store.messages import MessageStore
from kama.server.store.pairs import parameters_of, select_by_pairs
from kama.server.store.progress import ProgressStore
from kama.server.store.schema import conversations, cursors
from kama.server.store.schema import messages as table


async def rows_of(database: Database) -> list[Any]:
    async with database.read() as connection:
        query = select(table).order_by(table.c.conversation, table.c.seq)
        return list((await connection.execute(query)).all())


async def seqs_of(store: MessageStore, conversation: str, **window: int) -> list[int]:
    history = await store.history(conversation, window.pop("limit", 100), **window)
    return [message.seq for message in history.messages]


# --- inserting


async def test_seqs_count_from_one_in_each_conversation(messages: MessageStore) -> None:
    batch = await messages.insert_batch([build_record("U1", "U2"), build_record("U1", "U3"), build_record("U2", "U1")])
    assert [(stored.conversation, stored.seq) for stored in batch.outcomes] == [
        ("U1_U2", 1),
        ("U1_U3", 1),
        ("U1_U2", 2),
    ]


async def test_seqs_go_on_in_the_next_batch(messages: MessageStore) -> None:
    await messages.insert_batch([build_record(), build_record()])
    batch = await messages.insert_batch([build_record()])
    assert batch.outcomes[0].seq == 3


@SQL_ALONE
async def test_a_batch_raises_the_version_of_each_conversation_once(messages: MessageStore) -> None:
    """KamaChat defect 32: it spent a statement or more on each message."""
    first = await messages.insert_batch([build_record(), build_record(), build_record("U1", "U3")])
    second = await messages.insert_batch([build_record()])
    assert first.versions == {"U1_U2": 1, "U1_U3": 1}
    assert second.versions == {"U1_U2": 2}
    assert await messages.head("U1_U2") == (3, 2)


async def test_a_batch_larger_than_a_look_up_is_stored_whole(messages: MessageStore) -> None:
    records = [build_record(client_msg_id=f"c{number}") for number in range(1234)]
    batch = await messages.insert_batch(records)
    again = await messages.insert_batch([build_record(client_msg_id=f"c{number}") for number in range(1234)])
    assert [stored.seq for stored in batch.outcomes] == list(range(1, 1235))
    assert all(stored.duplicate for stored in again.outcomes)
    assert await seqs_of(messages, "U1_U2", limit=2000) == list(range(1, 1235))


async def test_an_empty_batch_does_nothing(messages: MessageStore) -> None:
    batch = await messages.insert_batch([])
    assert (batch.outcomes, batch.backs, batch.versions) == ([], [], {})


@SQL_ALONE
async def test_a_batch_that_fails_leaves_nothing_behind(messages: MessageStore, database: Database) -> None:
    good, bad = build_record(), build_record()
    bad.request.content = None  # type: ignore[assignment]
    with pytest.raises(Exception, match="(?i)not.null") as caught:
        await messages.insert_batch([good, bad])
    assert good.request.content not in str(caught.value), "an error goes to the log, and a payload does not"
    assert await rows_of(database) == []
    assert await messages.head("U1_U2") == (0, 0)
    assert (await messages.insert_batch([good])).outcomes[0].seq == 1


async def test_a_new_pair_opens_a_cursor_for_both(messages: MessageStore, progress: ProgressStore) -> None:
    await messages.insert_batch([build_record("U2", "U1")])
    for user in ("U1", "U2"):
        assert [(at.conversation, at.sent_seq, at.last_seq) for at in await progress.positions(user)] == [
            ("U1_U2", 0, 1)
        ]


async def test_notes_to_oneself_open_one_cursor(messages: MessageStore, database: Database) -> None:
    await messages.insert_batch([build_record("U1", "U1")])
    async with database.read() as connection:
        assert (await connection.execute(select(cursors.c.user_id))).scalars().all() == ["U1"]


@SQL_ALONE
async def test_the_first_message_to_a_group_raises_its_version(groups: GroupStore, messages: MessageStore) -> None:
    await groups.create("G1", "U1", ["U2"], "")
    assert (await messages.insert_batch([build_record("U1", "G1")])).versions == {"G1": 1}


# --- what comes again


async def test_the_same_client_msg_id_again_is_one_row(messages: MessageStore, database: Database) -> None:
    """KamaChat defect 11: a retry was stored and delivered as another message."""
    first = (await messages.insert_batch([build_record(client_msg_id="c")])).outcomes[0]
    batch = await messages.insert_batch([build_record(client_msg_id="c")])
    repeat = batch.outcomes[0]
    assert (repeat.uuid, repeat.conversation, repeat.seq, repeat.duplicate) == (first.uuid, "U1_U2", 1, True)
    assert batch.backs == [None]
    assert batch.versions == {}
    assert len(await rows_of(database)) == 1


async def test_a_repeat_to_somebody_else_points_at_the_first_conversation(messages: MessageStore) -> None:
    await messages.insert_batch([build_record("U1", "U2", client_msg_id="c")])
    repeat = (await messages.insert_batch([build_record("U1", "U3", client_msg_id="c")])).outcomes[0]
    assert (repeat.conversation, repeat.duplicate) == ("U1_U2", True)
    assert await messages.head("U1_U3") == (0, 0)


async def test_two_senders_may_use_the_same_client_msg_id(messages: MessageStore) -> None:
    batch = await messages.insert_batch([build_record("U1", client_msg_id="c"), build_record("U3", client_msg_id="c")])
    assert [stored.duplicate for stored in batch.outcomes] == [False, False]


async def test_messages_without_a_client_msg_id_are_never_repeats(messages: MessageStore) -> None:
    batch = await messages.insert_batch([build_record(content="same"), build_record(content="same")])
    assert [stored.seq for stored in batch.outcomes] == [1, 2]


@SQL_ALONE
async def test_a_redelivered_record_has_its_message_again(messages: MessageStore) -> None:
    record = build_record()
    first = await messages.insert_batch([record])
    again = await messages.insert_batch([record])
    assert again.outcomes[0].duplicate
    assert again.backs == first.backs
    assert again.backs[0] is not None


async def test_a_repeat_in_the_same_batch_gets_the_seq_of_the_first(messages: MessageStore) -> None:
    first, repeat = build_record(client_msg_id="c"), build_record(client_msg_id="c")
    batch = await messages.insert_batch([build_record(), first, repeat])
    assert [(stored.uuid, stored.seq) for stored in batch.outcomes[1:]] == [(first.uuid, 2)] * 2
    assert batch.backs[2] is None


PAIRS = [("U1", "U2"), ("U2", "U1"), ("U1", "U1"), ("U1_2", "U3"), ("U1", "G1")]
planned = st.tuples(st.sampled_from(PAIRS), st.sampled_from([None, None, "a", "b"]), st.booleans(), st.integers(0, 30))


@pytest.mark.parametrize("loop", ["sqlite", POSTGRES], indirect=True)
def test_any_batches_give_gapless_seqs_and_one_row_per_message(loop: Loop) -> None:
    """Whatever mix of conversations, repeats and redeliveries; and each batch run again changes nothing."""

    @settings(THROUGH_A_DATABASE, max_examples=60)
    @given(st.lists(st.lists(planned, min_size=1, max_size=8), max_size=6))
    def check(plan: list[list[Any]]) -> None:
        loop.run_on_empty(store_and_compare(loop, batches_of(plan)))

    check()


def batches_of(plan: list[list[Any]]) -> list[list[Record]]:
    """Records as planned; a redelivery is an earlier record once more."""
    before: list[Record] = []
    batches = []
    for wanted in plan:
        batch = []
        for (send_id, receive_id), client_msg_id, redelivered, number in wanted:
            if redelivered and before:
                record = before[number % len(before)]
            else:
                record = build_record(send_id, receive_id, client_msg_id=client_msg_id)
            before.append(record)
            batch.append(record)
        batches.append(batch)
    return batches


async def store_and_compare(loop: Loop, batches: list[list[Record]]) -> None:
    expected: dict[str, list[int]] = {}
    first_of: dict[Any, Record] = {}
    for batch in batches:
        fresh = []
        for record in batch:
            keys = [record.uuid]
            if record.request.client_msg_id is not None:
                keys.append((record.request.send_id, record.request.client_msg_id))  # type: ignore[arg-type]
            first = next((first_of[key] for key in keys if key in first_of), None)
            fresh.append(first is None)
            if first is None:
                expected.setdefault(record.key, []).append(record.uuid)
            first_of.update((key, first or record) for key in keys if key not in first_of)
        stored = await loop.messages.insert_batch(batch)
        places = [(outcome.uuid, outcome.conversation, outcome.seq) for outcome in stored.outcomes]
        for record, outcome, back, new in zip(batch, stored.outcomes, stored.backs, fresh, strict=True):
            first = first_of[record.uuid]
            assert outcome.uuid == first.uuid
            assert outcome.conversation == first.key
            assert expected[first.key][outcome.seq - 1] == first.uuid
            assert outcome.duplicate is not new
            assert (back is not None) == (outcome.uuid == record.uuid)
        before = await rows_of(loop.database)
        again = await loop.messages.insert_batch(batch)
        assert [(outcome.uuid, outcome.conversation, outcome.seq) for outcome in again.outcomes] == places
        assert again.versions == {}
        assert await rows_of(loop.database) == before
    found: dict[str, list[int]] = {}
    for row in await rows_of(loop.database):
        found.setdefault(row.conversation, []).append(row.uuid)
        assert row.seq == len(found[row.conversation])
    assert found == expected
    async with loop.database.read() as connection:
        heads = await connection.execute(select(conversations.c.conversation, conversations.c.last_seq))
        assert {row[0]: row[1] for row in heads} == {key: len(uuids) for key, uuids in expected.items()}


# --- reading


@pytest.mark.parametrize("kind", list(MessageType))
async def test_a_message_reads_back_as_it_was_pushed(messages: MessageStore, kind: MessageType) -> None:
    record = build_record(
        type=kind, content="caption", url="/static/f", file_name="f", file_type="png", file_size="3KB",
        send_name="One", send_avatar="/static/a", session_id="S1", av_data='{"messageId":"PROXY"}', client_msg_id="c",
    )  # fmt: skip
    (pushed,) = (await messages.insert_batch([record])).backs
    assert pushed is not None
    assert (await messages.history("U1_U2", 10)).messages == [msgspec.json.decode(pushed.frame, type=Message)]


async def test_text_is_kept_to_the_letter(messages: MessageStore) -> None:
    text = "naïve 💬 \u202e ' \" ; -- %s \\ \n\t"
    await messages.insert_batch([build_record(content=text)])
    assert (await messages.history("U1_U2", 1)).messages[0].content == text


async def test_history_is_the_newest_messages_oldest_first(messages: MessageStore) -> None:
    """KamaChat defect 31: it read the whole conversation."""
    await messages.insert_batch([build_record() for _ in range(10)])
    assert await seqs_of(messages, "U1_U2", limit=3) == [8, 9, 10]


async def test_history_goes_back_from_a_seq(messages: MessageStore) -> None:
    await messages.insert_batch([build_record() for _ in range(10)])
    assert await seqs_of(messages, "U1_U2", limit=3, before_seq=8) == [5, 6, 7]


async def test_history_goes_on_after_a_seq(messages: MessageStore) -> None:
    await messages.insert_batch([build_record() for _ in range(10)])
    assert await seqs_of(messages, "U1_U2", limit=3, after_seq=4) == [5, 6, 7]


async def test_history_between_two_seqs_begins_at_the_older(messages: MessageStore) -> None:
    await messages.insert_batch([build_record() for _ in range(10)])
    assert await seqs_of(messages, "U1_U2", limit=2, after_seq=4, before_seq=9) == [5, 6]


async def test_history_says_how_far_the_conversation_goes(messages: MessageStore) -> None:
    await messages.insert_batch([build_record(), build_record()])
    history = await messages.history("U1_U2", 1, before_seq=2)
    assert (history.last_seq, history.version) == (2, 1)


async def test_a_conversation_that_never_was_is_empty(messages: MessageStore) -> None:
    history = await messages.history("U8_U9", 10)
    assert (history.last_seq, history.version, history.messages) == (0, 0, [])


async def test_conversations_do_not_mix_when_ids_hold_underscores(messages: MessageStore) -> None:
    await messages.insert_batch([build_record("U1", "U2_U3", content="a"), build_record("U1_U2", "U3", content="b")])
    first = await messages.history(conversation_id("U1", "U2_U3"), 10)
    assert [message.content for message in first.messages] == ["a"]


async def test_a_message_is_found_by_its_uuid(messages: MessageStore) -> None:
    record = build_record(content="here")
    await messages.insert_batch([record])
    found = await messages.find(record.uuid)
    assert found is not None
    assert found.content == "here"
    assert found.created_at == local_time(NOON_MS + record.uuid)


@pytest.mark.parametrize("uuid", [1 << 62, 2**63 - 1, 2**63, 10**19])
async def test_a_uuid_that_is_nobodys_is_not_found(messages: MessageStore, uuid: int) -> None:
    assert await messages.find(uuid) is None


async def test_the_last_uuid_is_the_greatest_ever_stored(messages: MessageStore) -> None:
    assert await messages.last_uuid() == 0
    await messages.insert_batch([build_record(uuid=900), build_record(uuid=700)])
    assert await messages.last_uuid() == 900


async def test_the_last_uuid_of_nodes_is_no_foreign_records(messages: MessageStore) -> None:
    last_of_nodes, foreign = (9 << 22) + (511 << 12) + 4095, (9999 << 22) + (512 << 12)
    await messages.insert_batch([build_record(uuid=uuid) for uuid in (7, last_of_nodes, foreign)])
    assert await messages.last_uuid(512) == last_of_nodes
    assert await messages.last_uuid() == foreign


async def test_history_shows_the_status(messages: MessageStore, progress: ProgressStore) -> None:
    batch = await messages.insert_batch([build_record()])
    await progress.apply(written_to("U2", *batch.backs))
    assert (await messages.history("U1_U2", 1)).messages[0].status == MessageStatus.SENT


async def test_what_is_stored_is_looked_up_in_the_index_however_long_the_table(messages: MessageStore) -> None:
    """SQLite would rather read the whole table, 20 times a second."""
    await messages.insert_batch([build_record("U1", "U2", client_msg_id=str(number)) for number in range(50)])
    database = messages._database
    pairs = [("U1", "7"), ("U1", "8"), ("U2", "7")]
    query = select_by_pairs(database, table.c.client_msg_id).params(**parameters_of(database, pairs))
    async with database.read() as connection:
        assert sorted((await connection.execute(query)).scalars()) == ["7", "8"]
        if database.is_sqlite:
            statement = query.compile(connection.sync_engine, compile_kwargs={"literal_binds": True})
            plan = str((await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")).all())
            assert "uq_message_send_id_client_msg_id" in plan
            assert "SCAN message" not in plan
