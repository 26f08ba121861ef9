"""Faults of real databases: which are worth trying again, and which are held against what was to be written."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from server_builders import SQL_ALONE, build_record
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from kama.server.store.database import Database, is_transient
from kama.server.store.messages import MessageStore

Statement = tuple[str, dict[str, Any]] | str


async def fault_of(url: str | URL, *statements: Statement, **options: Any) -> Exception:
    """What one transaction of these raises."""
    engine = create_async_engine(url, **options)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                command, values = (statement, {}) if isinstance(statement, str) else statement
                await connection.execute(text(command), values)
    except Exception as error:
        return error
    finally:
        await engine.dispose()
        await no_threads_left()
    raise AssertionError("nothing was raised")


async def no_threads_left() -> None:
    """aiosqlite does not wait for the thread of a connection that could not be made, which tells the loop later."""
    while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
        await asyncio.sleep(0.001)


def sqlstate(error: Exception) -> str | None:
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state


# --- PostgreSQL


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("state", "statements"),
    [
        ("08003", ["SELECT pg_terminate_backend(pg_backend_pid())"]),
        ("25006", ["SET TRANSACTION READ ONLY", "CREATE TABLE t (n int)"]),
        ("42P01", ["SELECT * FROM not_there_yet"]),
        ("42703", ["SELECT not_there_yet FROM pg_class"]),
        ("57014", ["SET statement_timeout = 20", "SELECT pg_sleep(60)"]),
    ],
    ids=["ended", "read only", "no table", "no column", "cancelled"],
)
async def test_what_may_pass_in_postgres_is_tried_again(
    postgres_url: str, state: str, statements: Sequence[Statement]
) -> None:
    error = await fault_of(postgres_url, *statements)
    assert (sqlstate(error), is_transient(error)) == (state, True)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("state", "statements"),
    [
        ("22001", ["CREATE TABLE t (word varchar(2))", "INSERT INTO t VALUES ('long')"]),
        ("22000", ["CREATE TABLE t (n int)", ("INSERT INTO t VALUES (:n)", {"n": 2**40})]),
        ("22021", ["CREATE TABLE t (word text)", ("INSERT INTO t VALUES (:word)", {"word": "\0"})]),
        ("23505", ["CREATE TABLE t (n int PRIMARY KEY)", "INSERT INTO t VALUES (1), (1)"]),
        (
            "54000",
            [
                "CREATE TABLE t (word text PRIMARY KEY)",
                "INSERT INTO t SELECT string_agg(md5(n::text), '') FROM generate_series(1, 2000) AS n",
            ],
        ),
    ],
    ids=["too long", "out of range", "nul", "there already", "too large for an index"],
)
async def test_what_postgres_holds_against_the_values_is_not_tried_again(
    postgres_url: str, state: str, statements: Sequence[Statement]
) -> None:
    error = await fault_of(postgres_url, *statements)
    assert (sqlstate(error), is_transient(error)) == (state, False)


@pytest.mark.postgres
async def test_a_postgres_that_cannot_be_reached_is_tried_again(postgres_url: str) -> None:
    url = make_url(postgres_url)
    for elsewhere in (url.set(port=1), url.set(database="not_restored_yet"), url.set(password="changed")):
        assert is_transient(await fault_of(elsewhere, "SELECT 1"))


# --- SQLite


async def test_a_full_or_damaged_sqlite_is_tried_again(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/full.db"
    full = await fault_of(
        url, "CREATE TABLE t (b)", "PRAGMA max_page_count = 3", "INSERT INTO t VALUES (zeroblob(99999))"
    )
    (tmp_path / "damaged.db").write_bytes(b"no database" * 999)
    damaged = await fault_of(f"sqlite+aiosqlite:///{tmp_path}/damaged.db", "SELECT * FROM t")
    missing = await fault_of("sqlite+aiosqlite:////not/mounted/yet.db", "SELECT 1")
    assert [getattr(error, "orig", error).sqlite_errorname for error in (full, damaged, missing)] == [
        "SQLITE_FULL",
        "SQLITE_NOTADB",
        "SQLITE_CANTOPEN",
    ]
    assert all(is_transient(error) for error in (full, damaged, missing))


async def test_a_locked_sqlite_is_tried_again(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "kama.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        url = f"sqlite+aiosqlite:///{tmp_path}/kama.db"
        assert is_transient(await fault_of(url, "CREATE TABLE t (n)", connect_args={"timeout": 0}))


async def test_what_sqlite_holds_against_the_values_is_not_tried_again(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/kama.db"
    twice = await fault_of(url, "CREATE TABLE t (n PRIMARY KEY)", "INSERT INTO t VALUES (1), (1)")
    too_big = await fault_of(url, "SELECT zeroblob(2000000000)")
    too_large = await fault_of(url, ("SELECT :n", {"n": 2**70}))
    assert [is_transient(error) for error in (twice, too_big, too_large)] == [False] * 3


# --- both


@asynccontextmanager
async def without_table(database: Database, name: str) -> AsyncIterator[None]:
    async with database.write() as tx:
        await tx.execute(text(f"ALTER TABLE {name} RENAME TO away"))
    yield
    async with database.write() as tx:
        await tx.execute(text(f"ALTER TABLE away RENAME TO {name}"))


@SQL_ALONE
async def test_a_table_that_comes_back_takes_what_waited_for_it(database: Database, messages: MessageStore) -> None:
    record = build_record()
    async with without_table(database, "message"):
        with pytest.raises(Exception) as caught:
            await messages.insert_batch([record])
        assert is_transient(caught.value)
    assert [stored.seq for stored in (await messages.insert_batch([record])).outcomes] == [1]
