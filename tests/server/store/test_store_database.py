"""Database: one writer at a time, readers that do not wait for it, and nothing half done."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from server_builders import build_record
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from kama.errors import SettingsError
from kama.server.store.database import Database
from kama.server.store.messages import MessageStore
from kama.server.store.schema import conversations


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite alone: these are its doors."""
    return f"sqlite+aiosqlite:///{tmp_path}/kama.db"


async def add(database: Database, key: str) -> None:
    async with database.write() as tx:
        await tx.execute(conversations.insert(), [{"conversation": key, "last_seq": 0, "version": 0}])


async def count(database: Database) -> int:
    async with database.read() as connection:
        return (await connection.execute(select(func.count()).select_from(conversations))).scalar_one()


async def test_opening_makes_the_folder_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "kama.db"
    database = Database(f"sqlite+aiosqlite:///{path}")
    await database.open()
    await database.close()
    assert path.exists()


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"])
async def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="expected store.url to name a file") as caught:
        await Database(url).open()
    assert caught.value.field == "store.url"


async def test_it_must_be_open_to_be_used(database_url: str) -> None:
    database = Database(database_url)
    for door in (database.read(), database.write()):
        with pytest.raises(RuntimeError, match="not open"):
            async with door:
                pass


async def test_closing_twice_is_harmless(database_url: str) -> None:
    database = Database(database_url)
    await database.open()
    await database.close()
    await database.close()


async def test_what_was_committed_is_there_after_opening_again(database_url: str) -> None:
    for expected in (1, 2):
        database = Database(database_url)
        await database.open()
        await add(database, f"c{expected}")
        assert await count(database) == expected
        await database.close()


@pytest.mark.parametrize(("synchronous", "number"), [("normal", 1), ("full", 2)])
async def test_the_journal_and_its_care_are_as_set(database_url: str, synchronous: str, number: int) -> None:
    database = Database(database_url, synchronous)  # type: ignore[arg-type]
    await database.open()
    async with database.write() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == number
    await database.close()


async def test_a_reader_sees_one_moment_while_others_write(database: Database) -> None:
    async with database.read() as connection:
        query = select(func.count()).select_from(conversations)
        assert (await connection.execute(query)).scalar_one() == 0
        await add(database, "c1")
        assert (await connection.execute(query)).scalar_one() == 0
    assert await count(database) == 1


async def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    async with database.write() as tx:
        await tx.execute(conversations.insert(), [{"conversation": "c1", "last_seq": 0, "version": 0}])
        async with asyncio.timeout(5):
            assert await count(database) == 0
    assert await count(database) == 1


async def test_writers_take_turns(database: Database) -> None:
    async def increase() -> None:
        async with database.write() as tx:
            seen = (await tx.execute(select(conversations.c.last_seq))).scalar_one()
            await asyncio.sleep(0)
            await tx.execute(conversations.update().values(last_seq=seen + 1))

    await add(database, "c1")
    await asyncio.gather(*(increase() for _ in range(20)))
    async with database.read() as connection:
        assert (await connection.execute(select(conversations.c.last_seq))).scalar_one() == 20


async def test_a_failed_transaction_is_undone_and_the_next_one_works(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as tx:
            await tx.execute(conversations.insert(), [{"conversation": "c1", "last_seq": 0, "version": 0}])
            raise ZeroDivisionError
    assert await count(database) == 0
    await add(database, "c1")
    assert await count(database) == 1


async def test_a_cancelled_transaction_is_undone_and_the_next_one_works(database: Database) -> None:
    begun = asyncio.Event()

    async def write_and_wait() -> None:
        async with database.write() as tx:
            await tx.execute(conversations.insert(), [{"conversation": "c1", "last_seq": 0, "version": 0}])
            begun.set()
            await asyncio.Event().wait()

    writer = asyncio.get_running_loop().create_task(write_and_wait())
    await begun.wait()
    writer.cancel()
    await asyncio.wait([writer])
    await add(database, "c2")
    assert await count(database) == 1


async def test_a_statement_cut_off_while_it_runs_locks_nobody_out(database: Database) -> None:
    """The cancelled task is kept, as a shutdown keeps its consumer: its traceback holds the statement's cursor."""
    begun = asyncio.Event()
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)"
    slow = f"{numbers} INSERT INTO conversation SELECT 'n' || i, 0, 0 FROM n RETURNING conversation"

    async def write_at_length() -> None:
        async with database.write() as tx:
            await tx.execute(conversations.insert(), [{"conversation": "c1", "last_seq": 0, "version": 0}])
            begun.set()
            await tx.execute(text(slow))

    writer = asyncio.get_running_loop().create_task(write_at_length())
    await begun.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    writer.cancel()
    await asyncio.wait([writer])
    async with asyncio.timeout(5):
        await add(database, "c2")
    assert await count(database) == 1
    assert writer.cancelled()


async def test_a_batch_cut_off_anywhere_is_stored_whole_or_not_at_all(database: Database) -> None:
    """Shutdown cancels whoever stores, at whatever moment."""
    store = MessageStore(database)
    for steps in range(40):
        records = [build_record("U1", f"U{100 + steps}"), build_record("U1", f"U{100 + steps}")]
        task = asyncio.get_running_loop().create_task(store.insert_batch(records))
        await asyncio.sleep(steps * 0.0002)
        task.cancel()
        await asyncio.wait([task])
        assert (await store.head(records[0].key))[0] in (0, 2)
        batch = await store.insert_batch(records)
        assert [outcome.seq for outcome in batch.outcomes] == [1, 2]


async def test_a_second_node_on_the_same_file_is_refused_until_the_first_has_closed(database_url: str) -> None:
    first, second = Database(database_url), Database(database_url)
    await first.open()
    with pytest.raises(SettingsError, match=f"another node \\(process {os.getpid()}\\) has the database") as caught:
        await second.open()
    assert caught.value.field == "store.url"
    await first.close()
    await second.open()
    await add(second, "c1")
    await second.close()


async def test_ping_raises_when_the_database_does_not_answer(database: Database, tmp_path: Path) -> None:
    await database.ping()
    absent = Database(f"sqlite+aiosqlite:///{tmp_path}")
    with pytest.raises(SQLAlchemyError):
        await absent.open()
    await absent.close()


async def test_a_file_that_is_no_database_is_refused_and_left_alone(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "kama.db"
    path.write_text("a poem, not a database\n" * 200)
    database = Database(database_url)
    with pytest.raises(SQLAlchemyError, match="not a database"):
        await database.open()
    await database.close()
    assert path.read_text().startswith("a poem")
