"""What storing costs, in SQLite and in PostgreSQL: the node's own stores on a new database, a transaction at a time."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import text

from benchmarks.scale.announced import user_ids
from benchmarks.scale.places import Places
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.table import Table, median
from kama.protocol import ChatMessageRequest, conversation_id
from kama.server.broker import Record
from kama.server.store.database import Database
from kama.server.store.groups import GroupStore
from kama.server.store.messages import MessageStore
from kama.server.store.progress import Progress, ProgressStore

_CONTENT = "x" * 200
_COLUMNS = ("store", "rows", "ms/transaction", "us/row", "node us/row", "PostgreSQL us/row", "WAL bytes/row")
_numbers = itertools.count(1)


async def measure(places: Places, sizes: Sizes) -> list[Table]:
    messages = Table("Messages of pairs, stored a batch in a transaction", _COLUMNS)
    repeated = Table("Messages of one conversation, stored a batch in a transaction", _COLUMNS)
    cursors = Table("Cursors of a group's members, moved in a transaction", _COLUMNS)
    tables = [messages, repeated, cursors]
    with tempfile.TemporaryDirectory(prefix="kama-scale-") as folder:
        await _measure("SQLite", f"sqlite+aiosqlite:///{Path(folder) / 'kama.db'}", None, sizes, tables)
    async with places.new_postgres() as url:
        await _measure("PostgreSQL", url, places, sizes, tables)
    return tables


async def _measure(name: str, url: str, places: Places | None, sizes: Sizes, tables: Sequence[Table]) -> None:
    messages, repeated, cursors = tables
    database = Database(url)
    await database.open()
    try:
        store, progress = MessageStore(database), ProgressStore(database)
        meter = _Meter(database, places, sizes.transactions)
        for rows in sizes.rows:
            pairs = [(f"U{number}a", f"U{number}b") for number in range(rows)]
            row = await meter.measure(rows, partial(_store, store, pairs))
            messages.add(name, rows, *row)
            same = [("U0c", "U0d")] * rows
            row = await meter.measure(rows, partial(_store, store, same))
            repeated.add(name, rows, *row)
        users = user_ids(max(sizes.cursors))
        await GroupStore(database).create("G1", users[0], users[1:], "all")
        for rows in sizes.cursors:
            some = users[:rows]
            row = await meter.measure(rows, partial(_move, progress, some))
            cursors.add(name, rows, *row)
    finally:
        await database.close()


async def _store(store: MessageStore, pairs: Sequence[tuple[str, str]]) -> None:
    await store.insert_batch(_records(pairs))


async def _move(progress: ProgressStore, users: Sequence[str]) -> None:
    await progress.apply(_moved(users))


def _records(pairs: Sequence[tuple[str, str]]) -> list[Record]:
    made = []
    for send_id, receive_id in pairs:
        number = next(_numbers)
        request = ChatMessageRequest(
            type=0, content=_CONTENT, send_id=send_id, receive_id=receive_id, client_msg_id=f"m{number}"
        )
        made.append(Record(conversation_id(send_id, receive_id), request, number, 1_800_000_000_000 + number))
    return made


def _moved(users: Sequence[str]) -> Progress:
    seq = next(_numbers)
    return Progress(cursors={(user, "G1"): [seq, 0, 0] for user in users})


class _Meter:
    """`places`: where PostgreSQL is, None for a store without a server."""

    def __init__(self, database: Database, places: Places | None, count: int) -> None:
        self._database = database
        self._places = places
        self._count = count

    async def measure(self, rows: int, act: Callable[[], Awaitable[Any]]) -> Sequence[Any]:
        """Median milliseconds of a transaction, then microseconds of wall, node and server time, and WAL, a row."""
        await act()
        server, log, cpu = self._server_cpu(), await self._log_bytes(), time.process_time()
        times: list[float] = []
        for _ in range(self._count):
            began = time.perf_counter()
            await act()
            times.append(time.perf_counter() - began)
        per_row = self._count * rows
        cpu = (time.process_time() - cpu) / per_row * 1e6
        taken = median(times)
        found: list[Any] = [taken * 1e3, taken / rows * 1e6, cpu]
        if self._places is None:
            return [*found, "-", "-"]
        written = (await self._log_bytes()) - log
        return [*found, (self._server_cpu() - server) / per_row * 1e6, written / per_row]

    def _server_cpu(self) -> float:
        return self._places.cpu_seconds()["postgres"] if self._places else 0.0

    async def _log_bytes(self) -> float:
        if self._places is None:
            return 0.0
        async with self._database.read() as connection:
            return float(await connection.scalar(text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")) or 0)
