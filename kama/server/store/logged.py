"""The stores of a node whose messages are in a log before they are in the database.

What is accepted is appended to the log: that is what an ack promises, and delivery follows it. A process of its own
folds the log into the database. Seqs are given here, and retries recognised: from memory for all that is not folded
yet and a good deal that is, from the database for the rest. Whoever reads the database waits until it has what was in
the log when it asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from kama.errors import SettingsError
from kama.protocol import MessageStatus, build_message, encode
from kama.server.broker import Record, Stored
from kama.server.message_back import MessageBack
from kama.server.store.database import Database
from kama.server.store.folder import Folder
from kama.server.store.lately import Lately
from kama.server.store.log import Log, LogBroken
from kama.server.store.log_records import MESSAGES, PROGRESS, ProgressRecord, write_messages, write_progress
from kama.server.store.look_up import LookUp
from kama.server.store.messages import Batch, MessageStore
from kama.server.store.pairs import Pair
from kama.server.store.progress import Position, Progress, ProgressStore, StatusChange
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
            self.log.open(log_id, folded)
        except LogBroken as error:
            raise SettingsError(
                str(error), field="store.url", hint="put the database and its log back together, or move the log away"
            ) from None
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


class LoggedMessages(MessageStore):
    """Numbers and logs what MessageStore would insert. Reads are MessageStore's."""

    def __init__(self, database: LoggedDatabase) -> None:
        super().__init__(database)
        self._logged = database
        self._last_seqs: Lately[str, int] = Lately()
        self._by_uuid: Lately[int, Stored] = Lately()
        self._by_pair: Lately[Pair, Stored] = Lately()

    async def insert_batch(self, records: Sequence[Record]) -> Batch:
        """Once this returns, the batch is in the log. A record whose (sender, client_msg_id) is there already is a
        duplicate. Raises OSError and what the database raises: then nothing was logged."""
        async with self._logged.turn:
            await self._logged.room()
            if unknown := self._unknown(records):
                await self._learn(unknown)
            return await self._log(records)

    def _unknown(self, records: Sequence[Record]) -> list[Record]:
        """Those of whose conversation or client_msg_id only the database can tell anything."""
        last_seqs, by_pair = self._last_seqs, self._by_pair
        return [
            record
            for record in records
            if last_seqs.get(record.key) is None or ((pair := _pair(record)) is not None and by_pair.get(pair) is None)
        ]

    async def _learn(self, records: Sequence[Record]) -> None:
        """All that is not folded yet is in memory: what is folded tells the rest."""
        keys = {record.key for record in records if self._last_seqs.get(record.key) is None}
        pairs = [pair for record in records if (pair := _pair(record)) is not None]
        seqs, places = await self._logged.look_up.find(keys, pairs)
        for key in keys:
            self._last_seqs.put(key, seqs.get(key, 0))
        for pair, stored in places.items():
            self._by_pair.put(pair, stored)

    async def _log(self, records: Sequence[Record]) -> Batch:
        outcomes: list[Stored] = []
        backs: list[MessageBack | None] = []
        frames: list[bytes] = []
        seqs: dict[str, int] = {}
        new: dict[Pair, Stored] = {}
        for record in records:
            pair = _pair(record)
            first = None if pair is None else new.get(pair) or self._by_pair.get(pair)
            if first is not None:
                outcomes.append(Stored(first.uuid, first.conversation, first.seq, duplicate=True))
                backs.append(None)
                continue
            key = record.key
            seq = seqs[key] = (seqs.get(key) or self._last_seqs.get(key) or 0) + 1
            stored = Stored(record.uuid, key, seq)
            request, uuid, accepted_ms = record.request, record.uuid, record.accepted_ms
            frame = encode(build_message(request, uuid, seq, accepted_ms))
            outcomes.append(stored)
            frames.append(frame)
            has_client_id = pair is not None
            backs.append(
                MessageBack(
                    *(frame, uuid, key, seq, request.send_id, request.receive_id, request.type, accepted_ms),
                    has_client_id=has_client_id,
                    live=True,
                )
            )
            if pair is not None:
                new[pair] = stored
        if frames:
            end = await self._logged.append(MESSAGES, write_messages(frames), len(frames))
            self._remember(outcomes, seqs, new, end)
        return Batch(outcomes, backs)

    def _remember(
        self, outcomes: Sequence[Stored], seqs: Mapping[str, int], new: Mapping[Pair, Stored], end: int
    ) -> None:
        """Only what is in the log is known: what could not be appended did not happen."""
        for key, seq in seqs.items():
            self._last_seqs.put(key, seq)
        for pair, stored in new.items():
            self._by_pair.put(pair, stored)
        for stored in outcomes:
            if not stored.duplicate:
                self._by_uuid.put(stored.uuid, stored)
        folded = self._logged.folder.folded
        for lately in (self._last_seqs, self._by_pair, self._by_uuid):
            lately.turn_over(end, folded)

    async def place(self, uuid: int) -> Stored | None:
        return self._by_uuid.get(uuid) or await super().place(uuid)


def _pair(record: Record) -> Pair | None:
    client_msg_id = record.request.client_msg_id
    return None if client_msg_id is None else (record.request.send_id, client_msg_id)


class LoggedProgress(ProgressStore):
    """Logs what ProgressStore would write. Which messages a receipt has raised, the folding process tells."""

    def __init__(self, database: LoggedDatabase) -> None:
        super().__init__(database)
        self._logged = database
        self._sent: Lately[int, bool] = Lately()

    async def positions(self, user_id: str) -> list[Position]:
        await self._logged.catch_up()
        return [Position(*found) for found in await self._logged.look_up.positions(user_id)]

    def positions_now(self, user_id: str) -> list[Position] | None:
        found = self._logged.look_up.positions_now(user_id) if self._logged.is_caught_up else None
        return None if found is None else [Position(*position) for position in found]

    async def apply(self, progress: Progress) -> tuple[list[StatusChange], Mapping[str, int]]:
        record = ProgressRecord(
            time.time_ns() // 1_000_000,
            list(progress.sent),
            [(user, key, sent, delivered, read) for (user, key), (sent, delivered, read) in progress.cursors.items()],
            [(user, key, status, seq) for (user, key, status), seq in progress.receipts.items()],
        )
        async with self._logged.turn:
            end = await self._logged.append(PROGRESS, write_progress(record), 0)
        changes: list[StatusChange] = []
        for user_id, back in progress.sent.values():
            # A copy that was read back from the store does not know what has become of the message since.
            if back.unsent and self._sent.get(back.uuid) is None:
                back.unsent = False
                self._sent.put(back.uuid, True)
                changes.append(
                    StatusChange(
                        back.uuid,
                        back.conversation,
                        back.seq,
                        back.send_id,
                        back.has_client_id,
                        MessageStatus.SENT,
                        user_id,
                    )
                )
        if progress.receipts:
            for rise in await self._logged.folder.rises(end):
                self._sent.put(rise.uuid, True)
                changes.append(
                    StatusChange(
                        rise.uuid,
                        rise.conversation,
                        rise.seq,
                        rise.send_id,
                        rise.has_client_id,
                        MessageStatus(rise.status),
                        rise.user_id,
                    )
                )
        self._sent.turn_over(end, self._logged.folder.folded)
        return changes, {}
