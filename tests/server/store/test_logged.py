"""The stores behind a log: what an ack promised is there for every reader, and after every start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import held_up
from server_builders import THROUGH_A_DATABASE, build_record, until, wipe, written_to
from sqlalchemy import select, text
from sqlalchemy.exc import TimeoutError as StoreTimeoutError

from kama.errors import SettingsError
from kama.protocol import MessageStatus
from kama.server.broker import Stored
from kama.server.store.database import Database, is_transient
from kama.server.store.folder import Folder
from kama.server.store.groups import GroupStore
from kama.server.store.lately import Lately
from kama.server.store.log import Log
from kama.server.store.logged import LoggedDatabase
from kama.server.store.logged_messages import LoggedMessages
from kama.server.store.logged_progress import LoggedProgress
from kama.server.store.messages import MessageStore
from kama.server.store.progress import Position, Progress
from kama.server.store.schema import messages as table


def url_in(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/kama.db"


@pytest.fixture
async def logged(tmp_path: Path) -> AsyncIterator[LoggedDatabase]:
    """Open, and its folding process is there and idle."""
    database = LoggedDatabase(url_in(tmp_path))
    await database.open()
    await ready(database)
    yield database
    await database.close()


async def ready(database: LoggedDatabase) -> None:
    database.folder._ask()
    await until(lambda: database.folder._process is not None)
    await LoggedProgress(database).apply(Progress(cursors={("U0", "nothing"): [0, 0, 0]}))
    await until(lambda: database.folder.folded == database.log.end)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wait for the folding process no longer than a moment."""
    monkeypatch.setattr(Folder.wait, "__defaults__", (0.2,))


async def seqs_of(store: MessageStore, conversation: str = "U1_U2") -> list[int]:
    return [message.seq for message in (await store.history(conversation, 1000)).messages]


async def folded_rows(database: LoggedDatabase) -> int:
    async with Database.read(database) as connection:
        return len((await connection.execute(select(table.c.uuid))).all())


# --- positions, at once or not


async def test_positions_are_told_at_once_when_all_is_folded(logged: LoggedDatabase) -> None:
    progress, messages = LoggedProgress(logged), LoggedMessages(logged)
    assert progress.positions_now("U1") == []
    with held_up(logged):
        await messages.insert_batch([build_record("U1", "U2")])
        assert progress.positions_now("U1") is None, "the store does not have it yet"
    await until(lambda: logged.is_caught_up)
    assert progress.positions_now("U1") == await progress.positions("U1") == [Position("U1_U2", 0, 1)]


# --- the same as the SQL way

PAIRS = [("U1", "U2"), ("U2", "U1"), ("U1", "U1"), ("U1_2", "U3"), ("U1", "G1")]
sendings = st.tuples(st.sampled_from(PAIRS), st.sampled_from([None, None, "a", "b", "c"]))
plans = st.lists(st.lists(sendings, min_size=1, max_size=6) | st.just([]), max_size=8)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[asyncio.Runner, LoggedDatabase, Database]]:
    with asyncio.Runner() as runner:
        logged, plain = LoggedDatabase(url_in(tmp_path / "logged")), Database(url_in(tmp_path / "plain"))
        runner.run(logged.open())
        runner.run(plain.open())
        yield runner, logged, plain
        runner.run(logged.close())
        runner.run(plain.close())


def test_any_batches_end_as_they_would_in_the_database_itself(
    both: tuple[asyncio.Runner, LoggedDatabase, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty batch stands for a new start: nothing is in memory. Two records are a generation of memory."""
    monkeypatch.setattr("kama.server.store.logged_messages.Lately", partial(Lately, 2))
    runner, logged, plain = both

    @settings(THROUGH_A_DATABASE, max_examples=40)
    @given(plans)
    def check(plan: list[list[Any]]) -> None:
        runner.run(compare(logged, plain, plan))

    check()


async def compare(logged: LoggedDatabase, plain: Database, plan: list[list[Any]]) -> None:
    for database in (logged, plain):
        await wipe(database)
    behind, direct = LoggedMessages(logged), MessageStore(plain)
    for batch in plan:
        if not batch:
            await logged.ping()
            behind = LoggedMessages(logged)
            continue
        records = [build_record(*pair, client_msg_id=name) for pair, name in batch]
        got, expected = await behind.insert_batch(records), await direct.insert_batch(records)
        assert got.outcomes == expected.outcomes
        assert got.backs == expected.backs
    rows = []
    for database in (logged, plain):
        async with database.read() as connection:
            rows.append((await connection.execute(select(table).order_by(table.c.uuid))).all())
    assert rows[0] == rows[1]


async def test_a_new_start_goes_on_with_seqs_and_knows_what_comes_again(tmp_path: Path) -> None:
    first: Stored | None = None
    for start in range(3):
        database = LoggedDatabase(url_in(tmp_path))
        await database.open()
        store = LoggedMessages(database)
        fresh, again = (await store.insert_batch([build_record(), build_record(client_msg_id="c")])).outcomes
        first = first or again
        assert fresh.seq == (1 if start == 0 else 2 + start)
        assert again == Stored(first.uuid, "U1_U2", 2, duplicate=start > 0)
        await database.close()


async def test_what_left_memory_long_ago_is_still_known_when_it_comes_again(
    logged: LoggedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kama.server.store.logged_messages.Lately", partial(Lately, 3))
    store = LoggedMessages(logged)
    (first,) = (await store.insert_batch([build_record(client_msg_id="c")])).outcomes
    for number in range(30):
        await store.insert_batch([build_record("U3", f"U{number}", client_msg_id=f"c{number}")])
        await logged.ping()
    assert store._by_pair[("U1", "c")] is None
    assert (await store.insert_batch([build_record(client_msg_id="c")])).outcomes == [
        Stored(first.uuid, "U1_U2", 1, duplicate=True)
    ]
    assert (await store.insert_batch([build_record()])).outcomes[0].seq == 2


async def test_old_messages_that_come_again_leave_memory_though_no_new_one_comes(
    logged: LoggedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kama.server.store.logged_messages.Lately", partial(Lately, 3))
    names = [f"c{number}" for number in range(30)]
    await LoggedMessages(logged).insert_batch([build_record(client_msg_id=name) for name in names])
    await logged.ping()
    store = LoggedMessages(logged)
    for name in names:
        assert (await store.insert_batch([build_record(client_msg_id=name)])).outcomes[0].duplicate
    assert len(store._by_pair.known(("U1", name) for name in names)) <= 6, "two generations"


async def test_a_message_that_cannot_be_written_leaves_nothing_behind(logged: LoggedDatabase) -> None:
    store = LoggedMessages(logged)
    with pytest.raises(UnicodeEncodeError):
        await store.insert_batch([build_record(client_msg_id="c"), build_record(content="\ud800")])
    assert (await store.insert_batch([build_record(client_msg_id="c")])).outcomes[0].seq == 1
    assert await seqs_of(store) == [1]


async def test_a_start_is_over_once_the_store_has_what_was_logged(logged: LoggedDatabase, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    with held_up(logged):
        await LoggedMessages(logged).insert_batch([build_record() for _ in range(3)])
        shutil.copytree(tmp_path, killed, ignore=lambda *_: ["killed"])
    started = LoggedDatabase(url_in(killed))
    await started.open()
    assert await folded_rows(started) == 3
    await started.close()


# --- readers


async def test_readers_see_what_was_acked_once_the_store_has_it(logged: LoggedDatabase) -> None:
    store, progress = LoggedMessages(logged), LoggedProgress(logged)
    with held_up(logged):
        batch = await store.insert_batch([build_record(), build_record()])
        readers = asyncio.gather(
            seqs_of(store), store.find(batch.outcomes[0].uuid), progress.positions("U2"), store.head("U1_U2")
        )
        await asyncio.sleep(0)
        assert await folded_rows(logged) == 0
        assert not readers.done()
    seqs, found, positions, (last_seq, _) = await readers
    assert (seqs, last_seq, positions) == ([1, 2], 2, [Position("U1_U2", 0, 2)])
    assert found is not None


async def test_where_a_message_is_can_be_told_before_the_store_has_it(logged: LoggedDatabase) -> None:
    """Receipts ask for it."""
    store = LoggedMessages(logged)
    with held_up(logged):
        (stored,) = (await store.insert_batch([build_record()])).outcomes
        assert await store.place(stored.uuid) == stored


@pytest.mark.usefixtures("impatient")
async def test_a_reader_is_told_when_the_store_stays_behind_and_may_come_back(logged: LoggedDatabase) -> None:
    store = LoggedMessages(logged)
    with held_up(logged):
        await store.insert_batch([build_record()])
        with pytest.raises(StoreTimeoutError, match=r"the store is behind its log for 0\.2 s") as caught:
            await store.history("U1_U2", 10)
        assert is_transient(caught.value)
        assert logged.folder._waiting == []
    await until(lambda: logged.folder.folded == logged.log.end)
    assert await seqs_of(store) == [1]


async def test_a_receipt_says_what_it_raised_once_the_store_has_it(logged: LoggedDatabase) -> None:
    store, progress = LoggedMessages(logged), LoggedProgress(logged)
    read = MessageStatus.READ
    with held_up(logged):
        await store.insert_batch([build_record(client_msg_id="c"), build_record()])
        receipt = Progress([], {("U2", "U1_U2"): [2, 2, 2]}, {("U2", "U1_U2", read): 2})
        applying = asyncio.get_running_loop().create_task(progress.apply(receipt))
        await until(lambda: bool(logged.folder._waiting))
        assert not applying.done()
    changes, _ = await applying
    assert [(change.seq, change.status, change.has_client_id) for change in changes] == [
        (1, read, True), (2, read, False),
    ]  # fmt: skip


async def test_a_message_that_was_read_back_is_not_told_of_as_sent_once_more(logged: LoggedDatabase) -> None:
    """To one connection it went live, another one caught up with it."""
    store, progress = LoggedMessages(logged), LoggedProgress(logged)
    (back,) = (await store.insert_batch([build_record()])).backs
    assert back is not None
    copy = type(back)(**{name: getattr(back, name) for name in back.__struct_fields__})
    assert len((await progress.apply(written_to("U2", back)))[0]) == 1
    assert (await progress.apply(written_to("U2", copy)))[0] == []


# --- groups


async def test_who_joins_while_messages_are_not_folded_yet_gets_none_from_before(logged: LoggedDatabase) -> None:
    store, groups, progress = LoggedMessages(logged), GroupStore(logged), LoggedProgress(logged)
    await groups.create("G1", "U1", [], "")
    with held_up(logged):
        await store.insert_batch([build_record("U1", "G1") for _ in range(3)])
        joining = asyncio.get_running_loop().create_task(groups.change("G1", ["U2"], []))
        await until(lambda: bool(logged.folder._waiting))
        assert not joining.done()
    await joining
    await store.insert_batch([build_record("U1", "G1")])
    assert await progress.positions("U2") == [Position("G1", 3, 4)]


async def test_a_group_dissolved_amid_its_messages_leaves_no_cursor(logged: LoggedDatabase) -> None:
    store, groups, progress = LoggedMessages(logged), GroupStore(logged), LoggedProgress(logged)
    await groups.create("G1", "U1", ["U2"], "")
    with held_up(logged):
        await store.insert_batch([build_record("U1", "G1")])
        await progress.apply(Progress(cursors={("U2", "G1"): [1, 0, 0]}))
        dissolving = asyncio.get_running_loop().create_task(groups.dissolve("G1"))
    await dissolving
    await store.insert_batch([build_record("U1", "G1")])
    await progress.apply(Progress(cursors={("U2", "G1"): [2, 0, 0]}))
    assert await progress.positions("U2") == []


async def test_a_transaction_sees_no_message_come_in_between(logged: LoggedDatabase) -> None:
    store = LoggedMessages(logged)
    async with logged.write():
        inserting = asyncio.get_running_loop().create_task(store.insert_batch([build_record()]))
        await asyncio.sleep(0.05)
        assert not inserting.done()
    assert (await inserting).outcomes[0].seq == 1


# --- room


@pytest.mark.usefixtures("impatient")
async def test_what_may_wait_for_the_store_is_bounded_and_nothing_is_lost(
    logged: LoggedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kama.server.store.logged.UNFOLDED_MAX", 5)
    store = LoggedMessages(logged)
    with held_up(logged):
        for _ in range(5):
            await store.insert_batch([build_record()])
        for _ in range(2):
            with pytest.raises(StoreTimeoutError):
                await store.insert_batch([build_record(client_msg_id="c")])
        assert logged.unfolded == 5
    monkeypatch.setattr(Folder.wait, "__defaults__", (10.0,))
    (stored,) = (await store.insert_batch([build_record(client_msg_id="c")])).outcomes
    assert (stored.seq, stored.duplicate) == (6, False)
    assert await seqs_of(store) == [1, 2, 3, 4, 5, 6]
    assert logged.unfolded == 0


# --- the disk


class Disk:
    """Counts the times that the log was brought to the disk, and fails or holds up the next ones."""

    def __init__(self, database: LoggedDatabase) -> None:
        self._sync = database.log.sync
        self._loop = asyncio.get_running_loop()
        self.synced = 0
        self.failures = 0
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        database.log.sync = self.sync  # type: ignore[method-assign]

    def sync(self) -> None:
        self._loop.call_soon_threadsafe(self.started.set)
        asyncio.run_coroutine_threadsafe(self.gate.wait(), self._loop).result(10)
        if self.failures:
            self.failures -= 1
            raise OSError("no such luck")
        self._sync()
        self.synced += 1


@pytest.fixture
async def durable(tmp_path: Path) -> AsyncIterator[LoggedDatabase]:
    database = LoggedDatabase(url_in(tmp_path), "disk")
    await database.open()
    yield database
    await database.close()


async def test_with_durability_a_batch_is_done_once_the_disk_has_it(durable: LoggedDatabase) -> None:
    disk, store = Disk(durable), LoggedMessages(durable)
    disk.gate.clear()
    inserting = asyncio.get_running_loop().create_task(store.insert_batch([build_record(), build_record()]))
    await disk.started.wait()
    assert not inserting.done()
    disk.gate.set()
    batch = await inserting
    assert disk.synced == 1
    await LoggedProgress(durable).apply(written_to("U2", *batch.backs))
    assert disk.synced == 1, "a status is not what was promised"


async def test_without_it_nobody_waits_for_the_disk(logged: LoggedDatabase) -> None:
    disk = Disk(logged)
    await LoggedMessages(logged).insert_batch([build_record()])
    assert not disk.started.is_set()


async def test_what_the_disk_did_not_take_never_was_and_is_tried_again(durable: LoggedDatabase) -> None:
    disk, store = Disk(durable), LoggedMessages(durable)
    await store.insert_batch([build_record()])
    before, disk.failures = durable.log.end, 1
    record = build_record(client_msg_id="c")
    with pytest.raises(OSError):
        await store.insert_batch([record])
    assert durable.log.end == before
    assert (await store.insert_batch([record])).outcomes == [Stored(record.uuid, "U1_U2", 2)]
    assert await seqs_of(store) == [1, 2]


async def test_a_reader_is_not_shown_what_the_disk_may_still_refuse(durable: LoggedDatabase) -> None:
    """Nor may it be folded: what is written next takes its place in the log."""
    disk, store = Disk(durable), LoggedMessages(durable)
    await store.insert_batch([build_record()])
    disk.failures = 1
    disk.started.clear()
    disk.gate.clear()
    inserting = asyncio.get_running_loop().create_task(store.insert_batch([build_record(content="refused")]))
    await disk.started.wait()
    assert await seqs_of(store) == [1]
    disk.gate.set()
    with pytest.raises(OSError):
        await inserting
    await store.insert_batch([build_record(content="in its place, and longer than it")])
    assert [message.content for message in (await store.history("U1_U2", 9)).messages][1:] == [
        "in its place, and longer than it"
    ]


async def test_after_a_power_cut_right_after_a_start_everything_acked_is_there(tmp_path: Path) -> None:
    """The database had it from its write-ahead log alone, which the disk need not have."""
    database = LoggedDatabase(url_in(tmp_path), "disk")
    await database.open()
    store = LoggedMessages(database)
    for _ in range(3):  # the first one is brought to the disk at once, and the others much later
        await store.insert_batch([build_record()])
        await database.ping()
    crashed = tmp_path / "crashed"
    shutil.copytree(tmp_path, crashed, ignore=lambda *_: ["crashed"])
    await database.close()

    started = LoggedDatabase(url_in(crashed), "disk")
    await started.open()
    cut = tmp_path / "cut"
    shutil.copytree(crashed, cut, ignore=lambda *_: ["kama.db-wal", "kama.db-shm", "cut"])
    await started.close()

    again = LoggedDatabase(url_in(cut), "disk")
    await again.open()
    assert await seqs_of(LoggedMessages(again)) == [1, 2, 3]
    await again.close()


async def test_a_full_disk_refuses_a_batch_whole_and_the_next_gets_its_seq(logged: LoggedDatabase) -> None:
    store = LoggedMessages(logged)
    await store.insert_batch([build_record()])
    assert logged.log._file is not None
    number = logged.log._file.fileno()
    kept, full = os.dup(number), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, number, inheritable=False)
    record = build_record(client_msg_id="c")
    for _ in range(2):
        with pytest.raises(OSError):
            await store.insert_batch([record, build_record()])
    os.dup2(kept, number, inheritable=False)
    os.close(kept)
    os.close(full)
    assert (await store.insert_batch([record])).outcomes == [Stored(record.uuid, "U1_U2", 2)]
    assert await seqs_of(store) == [1, 2]


# --- a database and its log, parted


async def two_lives(folder: Path) -> None:
    """A database with a log, of which both hold a message."""
    database = LoggedDatabase(url_in(folder))
    await database.open()
    await LoggedMessages(database).insert_batch([build_record()])
    await database.close()


async def test_a_log_without_its_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    await two_lives(tmp_path)
    os.unlink(tmp_path / "kama.db")
    files = sorted(os.listdir(tmp_path / "kama.db-log"))
    database = LoggedDatabase(url_in(tmp_path))
    with pytest.raises(SettingsError, match="expected the log .* of this database, got") as caught:
        await database.open()
    await database.close()
    assert caught.value.field == "store.url"
    assert sorted(os.listdir(tmp_path / "kama.db-log")) == files


async def test_a_database_without_its_log_goes_on(tmp_path: Path) -> None:
    await two_lives(tmp_path)
    shutil.rmtree(tmp_path / "kama.db-log")
    database = LoggedDatabase(url_in(tmp_path))
    await database.open()
    store = LoggedMessages(database)
    assert (await store.insert_batch([build_record()])).outcomes[0].seq == 2
    assert await seqs_of(store) == [1, 2]
    await database.close()


async def test_a_log_that_has_lost_all_that_the_database_lacks_goes_on(tmp_path: Path) -> None:
    """A power cut right after a segment was begun: the database does not have the end of the one before."""
    await two_lives(tmp_path)
    log_id, position = bytes.fromhex(await log_id_in(tmp_path)), 10_000
    shutil.rmtree(tmp_path / "kama.db-log")
    with contextlib.closing(Log(tmp_path / "kama.db-log")) as log:
        log.open(log_id, position)
    database = LoggedDatabase(url_in(tmp_path))
    try:
        async with asyncio.timeout(10):
            await database.open()
        store = LoggedMessages(database)
        assert (await store.insert_batch([build_record()])).outcomes[0].seq == 2
        assert await seqs_of(store) == [1, 2]
    finally:
        await database.close()


async def test_the_first_start_has_the_disk_know_whose_log_it_is(tmp_path: Path) -> None:
    """Else a power cut would leave a log that its own database does not know."""
    database = LoggedDatabase(url_in(tmp_path))
    await database.open()
    (tmp_path / "cut").mkdir()
    shutil.copyfile(tmp_path / "kama.db", tmp_path / "cut" / "kama.db")
    async with database.read() as connection:
        log_id = (await connection.execute(text("SELECT log_id FROM log_position"))).scalar_one()
    await database.close()
    assert await log_id_in(tmp_path / "cut") == log_id


async def log_id_in(folder: Path) -> str:
    bare = Database(url_in(folder))
    await bare.open()
    async with bare.read() as connection:
        log_id: str = (await connection.execute(text("SELECT log_id FROM log_position"))).scalar_one()
    await bare.close()
    return log_id
