"""The database of a node whose messages are in a log before they are in it.

What is accepted is appended to the log: that is what an ack promises, and delivery follows it. A process of its own
folds the log into the database. Whoever reads the database waits until it has what was in the log when it asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kama.errors import SettingsError
from kama.server.store.database import Database
from kama.server.store.folder import Folder
from kama.server.store.log import Log
from kama.server.store.log_reading import LogBroken
from kama.server.store.look_up import LookUp
from kama.server.store.schema import log_positions
from kama.server.traffic import HighMark

Durability = Literal["process", "disk"]

# More than that waits: the memory that it takes is bounded, and so is what a start has to fold.
UNFOLDED_MAX = 200_000


class LoggedDatabase(Database):
    """SQLite behind a log in the folder `<database>-log`.

    `read` shows everything that was logged before it, `write` is a transaction in which nothing is logged meanwhile.
    """

    def __init__(self, url: str, durability: Durability = "process") -> None:
        super().__init__(url, "full" if durability == "disk" else "normal")
        file = Path(self._url.database or "")
        folder = file.with_name(f"{file.name}-log")
        self.is_durable = durability == "disk"
        self.log = Log(folder)
        self.folder = Folder(file, folder, is_durable=self.is_durable, forget=self.log.forget)
        self.look_up = LookUp(str(file))
        self.turn = asyncio.Lock()
        self._file = file
        self._logged = 0
        self._unfolded: deque[tuple[int, int]] = deque()
        self._unfolded_count = 0
        self._logged_count = 0
        self.mark = HighMark()

    async def open(self) -> None:
        """Raises SettingsError when the database or its log cannot be opened. What was not folded yet is, before."""
        await super().open()
        await self.look_up.open()
        log_id, folded = await self._place()
        # Else a power cut could leave a log that its own database does not know.
        is_kept = await asyncio.to_thread(_checkpoint, self._file) or not self.is_durable
        try:
            begin = self.log.open(log_id, folded)
        except LogBroken as error:
            raise SettingsError(
                str(error), field="store.url", hint="put the database and its log back together, or move the log away"
            ) from None
        if begin > folded:
            folded = await self._go_on_from(begin)
        if is_kept:
            self.log.forget(folded)
        self._logged = self.log.end
        self.folder.open(log_id, folded)
        await self.folder.wait(self._logged, patience=None)

    async def _place(self) -> tuple[bytes, int]:
        async with super().write() as tx:
            row = (await tx.execute(select(log_positions))).first()
            if row is not None:
                return bytes.fromhex(row.log_id), row.position
            log_id = uuid.uuid4().bytes
            await tx.execute(insert(log_positions), [{"log_id": log_id.hex(), "position": 0}])
        return log_id, 0

    async def _go_on_from(self, position: int) -> int:
        """What the log had before it is lost: nobody is to wait for that."""
        async with super().write() as tx:
            await tx.execute(update(log_positions).values(position=position))
        return position

    # --- what is not folded yet

    @property
    def unfolded(self) -> int:
        """Messages that are in the log and not in the database."""
        while self._unfolded and self._unfolded[0][0] <= self.folder.folded:
            self._unfolded_count -= self._unfolded.popleft()[1]
        return self._unfolded_count

    @property
    def folded(self) -> int:
        """Messages of this run that are in the database too."""
        return self._logged_count - self.unfolded

    @property
    def trouble(self) -> str:
        """Why the database does not follow the log; empty while it does."""
        return self.folder.trouble

    async def room(self) -> None:
        """Until another message may be logged. Raises SQLAlchemy's TimeoutError, which is transient."""
        while self.unfolded >= UNFOLDED_MAX:
            await self.folder.wait(self._unfolded[0][0])

    async def append(self, kind: int, content: bytes, count: int) -> int:
        """`count` messages, which outlive whatever `durability` says; for whoever has the turn. Raises OSError."""
        before = self.log.end
        end = self.log.append(kind, content)
        if self.is_durable and count:
            try:
                await asyncio.to_thread(self.log.sync)
            except BaseException:
                # After a failed sync nobody knows what the disk has: it is written anew.
                self.log.take_back(before)
                raise
        if count:
            self._unfolded.append((end, count))
            self._unfolded_count += count
            self._logged_count += count
            self.mark.see(self._unfolded_count)
        self._logged = end
        self.folder.reach(end)
        return end

    # --- the doors

    async def catch_up(self) -> None:
        """Until the database has what is logged by now. Raises SQLAlchemy's TimeoutError."""
        # Not up to the log's end: what is there without being synced may still be taken back.
        await self.folder.wait(self._logged)

    @property
    def is_caught_up(self) -> bool:
        return self.folder.folded >= self._logged

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        await self.catch_up()
        async with super().read() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        # Before its turn as well: a database that does not follow holds up nobody but who writes to it.
        await self.catch_up()
        async with self.turn:
            await self.catch_up()
            async with super().write() as connection:
                yield connection

    async def close(self) -> None:
        await self.folder.close(patience=10)
        await self.look_up.close()
        self.log.close()
        await super().close()


def _checkpoint(database: Path) -> bool:
    """Whether the disk has what the database has, whatever happens to the machine. Else somebody is writing."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    return not busy
