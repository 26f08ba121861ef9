"""One database behind two doors: readers that never wait for a writer, and one writer at a time.

SQLite runs in WAL mode. A committed transaction survives the end of the process whatever `synchronous` says;
under `normal` the last ones may be lost when the machine loses power, under `full` they are not
(https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from sqlalchemy import event, make_url, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    MissingGreenlet,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kama.errors import SettingsError
from kama.server.store.exclusive import hold
from kama.server.store.migrate import upgrade
from kama.server.store.one_hop import connect

_READERS = 4


# Classes of SQLSTATE that are about the values of a statement: cardinality, data, constraints, views, sizes
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_ABOUT_VALUES = ("21", "22", "23", "44", "54")


def is_transient(error: BaseException) -> bool:
    """Whether the same statement may succeed later: the database is not there or not fit, rather than unwilling.

    Only what is held against the values themselves will not pass. All else may, by itself or by an operator's hand:
    a lost connection, a lock, a full disk, and a table that is not there (class 42) because a migration has still to
    make it. To wait for that drops nothing that was accepted; to give up would drop all of it.
    """
    if isinstance(error, IntegrityError | DataError):
        return False
    if isinstance(error, DBAPIError):
        # Of asyncpg's errors about data, SQLAlchemy makes no DataError.
        return not (getattr(error.orig, "sqlstate", None) or "").startswith(_ABOUT_VALUES)
    if isinstance(error, StatementError):
        return False  # a parameter that no driver takes: it never got as far as the database
    return isinstance(error, SQLAlchemyError | sqlite3.Error | OSError)


class Database:
    """Opens with the schema up to date. `read()` gives a consistent snapshot, `write()` one transaction.

    `connections`: how many of PostgreSQL's it takes. What SQLAlchemy raises passes through; `is_transient` tells
    whether trying again may help.
    """

    def __init__(self, url: str, synchronous: Literal["normal", "full"] = "normal", connections: int = 8) -> None:
        self._url = make_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._synchronous = synchronous
        self._connections = connections
        self._writer: AsyncEngine | None = None
        self._reader: AsyncEngine | None = None
        self._held: IO[str] | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Raises SettingsError when the database cannot be opened at all."""
        if self.is_sqlite:
            self._held = hold(self._make_folder())
            self._writer = self._sqlite_engine("BEGIN IMMEDIATE", pool_size=1)
            self._reader = self._sqlite_engine("BEGIN", pool_size=_READERS)
        else:
            self._writer = self._engine(pool_size=1, pool_pre_ping=True)
            # A snapshot, as SQLite's readers have: PostgreSQL would otherwise take a new one with each statement.
            readers = self._connections - 1
            self._reader = self._engine(pool_size=readers, pool_pre_ping=True, isolation_level="REPEATABLE READ")
        async with self._writer.begin() as connection:
            await connection.run_sync(upgrade)

    def _make_folder(self) -> Path:
        name = self._url.database
        if not name or name == ":memory:":
            raise SettingsError(
                "expected store.url to name a file: a database in memory keeps nothing, and every connection sees "
                "another one",
                field="store.url",
            )
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        return Path(name)

    def _engine(self, **options: Any) -> AsyncEngine:
        # Errors go to the log, and parameters are what people wrote to each other.
        # Who finds no free connection waits for one: a crowd at the door must not cost the others' statements.
        return create_async_engine(self._url, hide_parameters=True, max_overflow=0, pool_timeout=60, **options)

    def _sqlite_engine(self, begin: str, pool_size: int) -> AsyncEngine:
        where, options = self._url.get_dialect()().create_connect_args(self._url)
        creator = partial(connect, *where, **{"timeout": 10, **options})
        engine = self._engine(pool_size=pool_size, async_creator=creator)

        @event.listens_for(engine.sync_engine, "connect")
        def on_connect(connection: Any, _record: Any) -> None:
            # Python's sqlite3 would begin transactions by its own rules; ours are begun below.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {self._synchronous}")
            cursor.execute("PRAGMA cache_size = -16384")
            cursor.close()

        @event.listens_for(engine.sync_engine, "invalidate")
        def on_invalidate(connection: Any, _record: Any, _error: BaseException | None) -> None:
            # SQLAlchemy closes the connection of a cancelled transaction and no more: as long as a traceback holds
            # one of its cursors, SQLite would keep the transaction open, and everybody else locked out.
            with contextlib.suppress(DBAPIError, MissingGreenlet, sqlite3.Error):
                connection.rollback()

        @event.listens_for(engine.sync_engine, "begin")
        def on_begin(connection: Any) -> None:
            connection.exec_driver_sql(begin)

        return engine

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        if self._reader is None:
            raise RuntimeError("the database is not open: await open() first")
        async with self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        if self._writer is None:
            raise RuntimeError("the database is not open: await open() first")
        async with self._turn, self._writer.begin() as connection:
            yield connection

    async def ping(self) -> None:
        """Raises what the driver raises when the database does not answer."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        for engine in {self._writer, self._reader} - {None}:
            assert engine is not None
            await engine.dispose()
        self._writer = self._reader = None
        if self._held is not None:
            self._held.close()
            self._held = None
