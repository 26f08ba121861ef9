"""StatusWriter: marks gather into batches, senders are told once, and a store that fails loses nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_builders import SQL_ALONE, THROUGH_A_DATABASE, Loop, build_record, messages_in, until, wipe
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from kama.protocol import MessageStatus, MessageType
from kama.server.cache import HistoryCache, MemoryBackend
from kama.server.message_back import MessageBack
from kama.server.status import StatusWriter
from kama.server.store.database import Database
from kama.server.store.logged import LoggedDatabase
from kama.server.store.logged_progress import LoggedProgress
from kama.server.store.progress import Progress, ProgressStore, StatusChange
from kama.server.store.schema import cursors

DELIVERED, READ = MessageStatus.DELIVERED, MessageStatus.READ
KEY = "U1_U2"


class Store(ProgressStore):
    """A real store, which can be held up or made to fail, and remembers what it was given."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.failures = 0
        self.refusal: Exception | None = None
        self.applied: list[Progress] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def apply(self, progress: Progress) -> tuple[list[StatusChange], Mapping[str, int]]:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise OSError("disk full")
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
        self.applied.append(progress)
        return await super().apply(progress)


class LoggedStore(Store, LoggedProgress):
    pass


class Desk:
    """A StatusWriter with what is around it, and the frames that senders were told."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.messages = messages_in(database)
        self.store = LoggedStore(database) if isinstance(database, LoggedDatabase) else Store(database)
        self.cache = HistoryCache(MemoryBackend(60, 100))
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.writer = StatusWriter(self.store, self.cache, self._tell)

    def _tell(self, user_id: str, frame: bytes) -> None:
        self.told.append((user_id, json.loads(frame)))

    async def insert(self, *pairs: tuple[str, str], **fields: Any) -> list[MessageBack]:
        records = [build_record(*pair, **fields) for pair in pairs]
        batch = await self.messages.insert_batch(records)
        return [back for back in batch.backs if back is not None]

    async def settled(self) -> None:
        await until(lambda: self.writer.depth == 0)

    async def statuses(self, conversation: str = KEY) -> list[int]:
        return [message.status for message in (await self.messages.history(conversation, 100)).messages]

    async def cursor(self, user: str) -> tuple[int, ...]:
        async with self.database.read() as connection:
            row = (await connection.execute(select(cursors).where(cursors.c.user_id == user))).one()
        return row.sent_seq, row.delivered_seq, row.read_seq


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    made = Desk(database)
    await made.writer.start()
    yield made
    await made.writer.close()


async def test_what_was_written_to_the_receiver_is_sent_and_its_cursor_moves(desk: Desk) -> None:
    (back,) = await desk.insert(("U1", "U2"))
    desk.writer.mark_sent("U2", back, back.seq)
    await desk.settled()
    assert await desk.statuses() == [MessageStatus.SENT]
    assert await desk.cursor("U2") == (1, 0, 0)


async def test_a_slower_connection_of_the_same_user_does_not_set_its_cursor_back(desk: Desk) -> None:
    first, second = await desk.insert(("U1", "U2"), ("U1", "U2"))
    desk.writer.mark_sent("U2", second, second.seq)
    desk.writer.mark_sent("U2", first, first.seq)
    assert desk.writer.marked("U2")(KEY) == 2
    await desk.settled()
    assert await desk.cursor("U2") == (2, 0, 0)


async def test_what_is_marked_is_known_before_it_is_committed(desk: Desk) -> None:
    first, second = await desk.insert(("U1", "U2"), ("U1", "U2"))
    desk.writer.mark_sent("U2", first, first.seq)
    desk.writer.mark_sent("U2", second, second.seq)
    before = desk.writer.marked("U2")
    assert (before(KEY), before("U2_U3"), desk.writer.marked("U1")(KEY)) == (2, 0, 0)
    await desk.settled()
    assert desk.writer.marked("U2")(KEY) == 0
    assert before(KEY) == 2  # whoever asked before may have read the store before


async def test_the_senders_own_echo_is_not_sent_but_moves_its_cursor(desk: Desk) -> None:
    """KamaChat defect 8: the sender's echo made a message count as sent."""
    (back,) = await desk.insert(("U1", "U2"))
    desk.writer.mark_sent("U1", back, back.seq)
    await desk.settled()
    assert await desk.statuses() == [MessageStatus.UNSENT]
    assert await desk.cursor("U1") == (1, 0, 0)


async def test_a_note_to_oneself_is_sent_when_it_was_written(desk: Desk) -> None:
    (back,) = await desk.insert(("U1", "U1"))
    desk.writer.mark_sent("U1", back, back.seq)
    await desk.settled()
    assert await desk.statuses("U1_U1") == [MessageStatus.SENT]


async def test_a_message_past_a_gap_is_sent_and_leaves_the_cursor(desk: Desk) -> None:
    backs = await desk.insert(("U1", "U2"), ("U1", "U2"))
    desk.writer.mark_sent("U2", backs[1], up_to=0)
    await desk.settled()
    assert await desk.statuses() == [0, 1]
    assert await desk.cursor("U2") == (0, 0, 0)


async def test_of_a_message_past_a_gap_its_sender_is_told_alone(desk: Desk) -> None:
    (first,) = await desk.insert(("U1", "U2"), client_msg_id="c1")
    await desk.insert(("U1", "U2"), client_msg_id="c2")
    (third,) = await desk.insert(("U1", "U2"), client_msg_id="c3")
    desk.writer.mark_sent("U2", first, first.seq)
    desk.writer.mark_sent("U2", third, up_to=0)
    await desk.settled()
    await until(lambda: len(desk.told) == 2)
    assert [(frame.get("after", 0), frame["seq"]) for _, frame in desk.told] == [(0, 1), (2, 3)]


async def test_who_has_read_has_received_and_was_sent(desk: Desk) -> None:
    await desk.insert(("U1", "U2"), ("U1", "U2"))
    desk.writer.mark_received("U2", KEY, 2, READ)
    await desk.settled()
    assert await desk.cursor("U2") == (2, 2, 2)
    assert await desk.statuses() == [3, 3]


async def test_the_sender_is_told_in_one_frame_up_to_the_last_message(desk: Desk) -> None:
    await desk.insert(("U1", "U2"), client_msg_id="c1")
    await desk.insert(("U1", "U2"), client_msg_id="c2")
    desk.writer.mark_received("U2", KEY, 2, DELIVERED)
    await desk.settled()
    await until(lambda: bool(desk.told))
    ((user, frame),) = desk.told
    assert frame.pop("at") > 1_600_000_000_000
    assert user == "U1"
    assert frame == {"type": "status", "conversation": KEY, "seq": 2, "status": "delivered", "user_id": "U2"}


async def test_a_client_without_client_msg_ids_is_told_nothing(desk: Desk) -> None:
    (back,) = await desk.insert(("U1", "U2"))
    desk.writer.mark_sent("U2", back, back.seq)
    desk.writer.mark_received("U2", KEY, 1, READ)
    await desk.settled()
    assert await desk.statuses() == [3]
    assert desk.told == []


async def test_the_same_receipt_again_tells_nobody(desk: Desk) -> None:
    await desk.insert(("U1", "U2"), client_msg_id="c1")
    for _ in range(3):
        desk.writer.mark_received("U2", KEY, 1, READ)
        await desk.settled()
    assert [frame["status"] for _, frame in desk.told] == ["read"]


async def test_a_signal_that_only_the_receiver_sees_is_sent_by_reaching_it(desk: Desk) -> None:
    (back,) = await desk.insert(("U1", "U2"), type=MessageType.AUDIO_OR_VIDEO, content="", av_data="{}")
    desk.writer.mark_sent("U1", back, back.seq)
    await desk.settled()
    assert await desk.statuses() == [0]
    desk.writer.mark_sent("U2", back, back.seq)
    await desk.settled()
    assert await desk.statuses() == [1]


async def test_marks_gather_while_a_batch_is_written(desk: Desk) -> None:
    """KamaChat defect 32: an update per message and connection."""
    backs = await desk.insert(*[("U1", "U2")] * 50)
    desk.store.gate.clear()
    desk.writer.mark_sent("U2", backs[0], backs[0].seq)
    await asyncio.sleep(0)
    for back in backs:
        desk.writer.mark_sent("U2", back, back.seq)
    assert desk.writer.depth == 2 + 49 + 1
    desk.store.gate.set()
    await desk.settled()
    assert len(desk.store.applied) == 2
    assert len(desk.store.applied[1].pushed) == 1
    assert await desk.statuses() == [1] * 50


@SQL_ALONE
async def test_the_cached_history_shows_the_new_status(desk: Desk) -> None:
    (back,) = await desk.insert(("U1", "U2"))
    desk.cache.fill(KEY, await desk.messages.history(KEY, 10))
    await desk.cache.start()
    desk.writer.mark_sent("U2", back, back.seq)
    await desk.settled()
    await until(lambda: desk.cache.depth == 0)
    kept = await desk.cache.read(KEY, 2)
    assert kept is not None
    assert [message.status for message in kept] == [1]
    await desk.cache.close()


async def test_a_store_that_fails_is_tried_again_until_it_works(desk: Desk) -> None:
    (back,) = await desk.insert(("U1", "U2"), client_msg_id="c")
    desk.store.failures = 2
    with capture_logs() as logs:
        desk.writer.mark_sent("U2", back, back.seq)
        await desk.settled()
    assert [entry["event"] for entry in logs] == ["status batch not stored: trying again"] * 2
    assert await desk.statuses() == [1]
    assert [frame["status"] for _, frame in desk.told] == ["sent"]


async def test_a_batch_that_can_never_be_stored_does_not_hold_up_the_next(desk: Desk) -> None:
    first, second = await desk.insert(("U1", "U2"), ("U1", "U2"))
    desk.store.refusal = IntegrityError("UPDATE", {}, Exception("no"))
    with capture_logs() as logs:
        desk.writer.mark_sent("U2", first, True)
        await desk.settled()
    assert [entry["event"] for entry in logs] == ["status batch cannot be stored: dropped"]
    desk.writer.mark_sent("U2", second, True)
    await desk.settled()
    assert [change.uuid for change in desk.store.applied[-1].sent] == [second.uuid]


async def test_closing_writes_what_is_marked(database: Database) -> None:
    desk = Desk(database)
    (back,) = await desk.insert(("U1", "U2"))
    await desk.writer.start()
    desk.writer.mark_sent("U2", back, back.seq)
    await desk.writer.close()
    await desk.writer.close()
    assert await desk.statuses() == [1]


async def test_closing_is_not_held_up_by_a_store_that_fails(database: Database) -> None:
    desk = Desk(database)
    (back,) = await desk.insert(("U1", "U2"))
    desk.store.failures = 10**6
    await desk.writer.start()
    with capture_logs():
        desk.writer.mark_sent("U2", back, back.seq)
        async with asyncio.timeout(5):
            await desk.writer.close()
    assert await desk.statuses() == [0]


async def test_closing_is_not_held_up_by_a_store_that_does_not_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a receipt, which waits for the folding process."""
    monkeypatch.setattr("kama.server.status._PATIENCE", 0.1)
    desk = Desk(database)
    desk.store.gate.clear()
    await desk.writer.start()
    desk.writer.mark_received("U2", KEY, 1, READ)
    async with asyncio.timeout(5):
        await desk.writer.close()
    assert desk.store.applied == []


async def test_closing_what_was_never_started_is_harmless(database: Database) -> None:
    await Desk(database).writer.close()


acts = st.tuples(
    st.sampled_from(["sent", "pulled", "delivered", "read"]), st.sampled_from(["U1", "U2"]), st.integers(1, 6)
)


def test_in_any_order_of_marks_nothing_goes_back(loop: Loop) -> None:
    """Statuses and cursors only rise, sent >= delivered >= read, and senders are never told of a step back."""

    @settings(THROUGH_A_DATABASE, max_examples=40)
    @given(st.lists(st.lists(acts, max_size=6), max_size=5))
    def check(plan: list[list[tuple[str, str, int]]]) -> None:
        loop.run(play(loop.database, plan))

    check()


async def play(database: Database, plan: list[list[tuple[str, str, int]]]) -> None:
    await wipe(database)
    desk = Desk(database)
    backs = [
        *await desk.insert(("U1", "U2"), client_msg_id="a"), *await desk.insert(("U2", "U1"), client_msg_id="b"),
        *await desk.insert(("U1", "U2"), client_msg_id="c"), *await desk.insert(("U2", "U1"), client_msg_id="d"),
        *await desk.insert(("U1", "U2"), ("U2", "U1")),
    ]  # fmt: skip
    await desk.writer.start()
    statuses, seqs = [0] * 6, {"U1": (0, 0, 0), "U2": (0, 0, 0)}
    for batch in plan:
        for act, user, seq in batch:
            if act in ("sent", "pulled"):
                desk.writer.mark_sent(user, backs[seq - 1], seq if act == "sent" else 0)
            else:
                desk.writer.mark_received(user, KEY, seq, DELIVERED if act == "delivered" else READ)
        await desk.settled()
        risen = await desk.statuses()
        assert all(new >= old for new, old in zip(risen, statuses, strict=True))
        moved = {user: await desk.cursor(user) for user in seqs}
        for user, (sent, delivered, read) in moved.items():
            assert sent >= delivered >= read
            assert all(new >= old for new, old in zip(moved[user], seqs[user], strict=True))
        statuses, seqs = risen, moved
    await desk.writer.close()
    told: dict[tuple[str, str, str], int] = {}
    for sender, frame in desk.told:
        key = (sender, frame["user_id"], frame["status"])
        assert frame["seq"] <= 4, "only for messages that carried a client_msg_id"
        assert statuses[frame["seq"] - 1] >= ["unsent", "sent", "delivered", "read"].index(frame["status"])
        told[key] = frame["seq"]
