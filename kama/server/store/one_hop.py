"""aiosqlite with one trip to its thread a statement.

SQLAlchemy makes a cursor, executes, fetches and closes: with aiosqlite's own cursor each of the four waits for the
connection's thread, and the trips cost more than the statements. Here the first and the last do nothing, and the rows
are fetched along with the execution. They are few by the nature of all our queries, which have limits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import aiosqlite


class OneHopCursor:
    """What SQLAlchemy asks of a cursor. Raises what sqlite3 raises."""

    def __init__(self, connection: OneHopConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> OneHopCursor:
        return self

    async def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> OneHopCursor:
        await self._connection.in_thread(self._run, sqlite3.Cursor.execute, sql, parameters)
        return self

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> OneHopCursor:
        await self._connection.in_thread(self._run, sqlite3.Cursor.executemany, sql, parameters)
        return self

    def _run(self, connection: sqlite3.Connection, execute: Any, sql: str, parameters: Any) -> None:
        cursor = connection.cursor()
        try:
            execute(cursor, sql, parameters)
            self.description = cursor.description
            self.rowcount = cursor.rowcount
            self.lastrowid = cursor.lastrowid
            self._rows = cursor.fetchall() if cursor.description else []
        finally:
            cursor.close()

    async def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Nothing is open."""


class OneHopConnection(aiosqlite.Connection):
    def cursor(self) -> Any:
        return OneHopCursor(self)

    async def in_thread(self, function: Any, *arguments: Any) -> Any:
        """`function(connection, *arguments)` in the connection's thread."""
        return await self._execute(function, self._conn, *arguments)  # type: ignore[no-untyped-call]


async def connect(database: str, **options: Any) -> OneHopConnection:
    """As `aiosqlite.connect`; for SQLAlchemy's `async_creator`. A program that ends does not wait for its thread."""
    connection = OneHopConnection(lambda: sqlite3.connect(database, **options), iter_chunk_size=64)
    connection._thread.daemon = True
    await connection
    return connection
