"""MessageStore: inserts batches, takes their seqs, and reads conversations back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET
from sqlalchemy import bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from kama.protocol import (
    SEQ_MAX,
    Message,
    build_message,
    conversation_id,
    local_time,
    participants,
)
from kama.server.broker import Record, Stored
from kama.server.message_back import MessageBack, message_back
from kama.server.snowflake import NODE_MAX
from kama.server.store.database import Database
from kama.server.store.pairs import parameters_of, select_by_pairs
from kama.server.store.schema import conversations, cursors, messages
from kama.server.store.upsert import upsert

_CHUNK = 400


@dataclass(slots=True)
class Batch:
    """What became of the records: an outcome for each, and a message for each that is in the store under its own uuid.

    For caches: the new version of each conversation that the transaction moved, and its new messages.
    """

    outcomes: list[Stored]
    backs: list[MessageBack | None]
    versions: Mapping[str, int] = field(default_factory=dict)
    fresh: Mapping[str, Sequence[Message]] = field(default_factory=dict)


@dataclass(slots=True)
class History:
    """One reader's view of a conversation: its newest seq, its version, and the messages asked for."""

    last_seq: int
    version: int
    messages: list[Message]


class MessageStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        # Made once: to put a statement together takes SQLAlchemy as long as to run it.
        self._take_seq = _take_seq(database)
        self._open_cursor = upsert(database, cursors).on_conflict_do_nothing()
        self._by_pairs = select_by_pairs(database, *_PLACE)

    async def insert_batch(self, records: Sequence[Record]) -> Batch:
        """One transaction: drop what is stored already, take seqs, insert.

        Running it again for the same records changes nothing and answers the same places. A record that is
        itself stored already (same uuid) has its message in the answer again, for a delivery that may have
        been cut short; a retry under another uuid has not.
        """
        async with self._database.write() as tx:
            outcomes, fresh = _sort_out(records, await self._known(tx, records))
            versions: dict[str, int] = {}
            built: dict[int, Message] = {}
            if fresh:
                versions = await self._take_seqs(tx, [stored for _, stored in fresh])
                built = {record.uuid: _message(record, stored) for record, stored in fresh}
                await tx.execute(_INSERT, [_row(record, built[record.uuid]) for record, _ in fresh])
            again = {record.uuid for record in records} & {stored.uuid for stored in outcomes} - built.keys()
            if again:
                # What is in the store counts, whatever the record says that came again.
                rows = await tx.execute(select(messages).where(messages.c.uuid.in_(again)))
                built |= {row.uuid: to_message(row) for row in rows}
        _number_repeats(outcomes, fresh)
        new: dict[str, list[Message]] = {key: [] for key in versions}
        for record, _ in fresh:
            new[record.key].append(built[record.uuid])
        backs = [
            message_back(stored.conversation, built[record.uuid], live=True) if stored.uuid == record.uuid else None
            for record, stored in zip(records, outcomes, strict=True)
        ]
        return Batch(outcomes, backs, versions, new)

    async def _known(self, tx: AsyncConnection, records: Sequence[Record]) -> dict[_Key, Stored]:
        """What the store holds already of these records, by id and by (sender, client_msg_id)."""
        known: dict[_Key, Stored] = {}
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            rows = list(await tx.execute(_BY_UUIDS, {"uuids": [record.uuid for record in chunk]}))
            pairs = [
                (record.request.send_id, record.request.client_msg_id)
                for record in chunk
                if record.request.client_msg_id is not None
            ]
            if pairs:
                rows += await tx.execute(self._by_pairs, parameters_of(self._database, pairs))
            for row in rows:
                stored = Stored(row.uuid, row.conversation, row.seq, duplicate=True)
                known[row.uuid] = stored
                if row.client_msg_id is not None:
                    known[(row.send_id, row.client_msg_id)] = stored
        return known

    async def _take_seqs(self, tx: AsyncConnection, fresh: Sequence[Stored]) -> dict[str, int]:
        """Move each conversation's counter once, then number its messages in their order. Gives the versions."""
        counts = Counter(stored.conversation for stored in fresh)
        # Sorted: two nodes that lock the same conversations lock them in the same order.
        rows = [{"conversation": key, "last_seq": n, "version": 1} for key, n in sorted(counts.items())]
        moved = (await tx.execute(self._take_seq, rows)).all()
        next_seq = {row.conversation: row.last_seq - counts[row.conversation] + 1 for row in moved}
        await self._open_cursors(tx, [key for key, seq in next_seq.items() if seq == 1])
        for stored in fresh:
            stored.seq = next_seq[stored.conversation]
            next_seq[stored.conversation] += 1
        return {row.conversation: row.version for row in moved}

    async def _open_cursors(self, tx: AsyncConnection, new: list[str]) -> None:
        """A new 1:1 conversation is someone's to catch up with from its first message on."""
        rows = [
            {"user_id": user, "conversation": key, "sent_seq": 0, "delivered_seq": 0, "read_seq": 0}
            for key in new
            for user in sorted(set(participants(key) or ()))
        ]
        if rows:
            await tx.execute(self._open_cursor, rows)

    async def history(
        self, conversation: str, limit: int, *, before_seq: int | None = None, after_seq: int | None = None
    ) -> History:
        """Messages oldest first: the newest `limit`; those before `before_seq`; or the first after `after_seq`."""
        query = select(messages).where(messages.c.conversation == conversation).limit(limit)
        if before_seq is not None:
            query = query.where(messages.c.seq < before_seq)
        if after_seq is not None:
            query = query.where(messages.c.seq > after_seq).order_by(messages.c.seq)
        else:
            query = query.order_by(messages.c.seq.desc())
        async with self._database.read() as connection:
            last_seq, version = await _head(connection, conversation)
            rows = (await connection.execute(query)).all()
        if after_seq is None:
            rows = rows[::-1]
        return History(last_seq, version, [to_message(row) for row in rows])

    async def head(self, conversation: str) -> tuple[int, int]:
        """The newest seq and the version of a conversation; (0, 0) when it has none."""
        async with self._database.read() as connection:
            return await _head(connection, conversation)

    async def place(self, uuid: int) -> Stored | None:
        """In which conversation a message is, and where there."""
        message = await self.find(uuid)
        if message is None:
            return None
        return Stored(uuid, conversation_id(message.send_id, message.receive_id), message.seq)

    async def find(self, uuid: int) -> Message | None:
        if uuid > SEQ_MAX:
            return None  # SQLite's driver would not raise an error of the database, but OverflowError
        async with self._database.read() as connection:
            row = (await connection.execute(_FIND, {"wanted": uuid})).first()
        return to_message(row) if row else None

    async def uuids(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """The ids of the messages that are stored under these (sender, client_msg_id)."""
        if not keys:
            return {}
        async with self._database.read() as connection:
            rows = await connection.execute(self._by_pairs, parameters_of(self._database, keys))
        return {(row.send_id, row.client_msg_id): row.uuid for row in rows}

    async def last_uuid(self, nodes: int = NODE_MAX + 1) -> int:
        """The greatest id ever stored that a node with a number below `nodes` made, 0 when there is none."""
        made_by = messages.c.uuid // 4096 % (NODE_MAX + 1)
        query = select(messages.c.uuid).where(made_by < nodes).order_by(messages.c.uuid.desc()).limit(1)
        async with self._database.read() as connection:
            return (await connection.scalar(query)) or 0


async def _head(connection: AsyncConnection, conversation: str) -> tuple[int, int]:
    row = (await connection.execute(_HEAD, {"key": conversation})).first()
    return (row.last_seq, row.version) if row else (0, 0)


# --- duplicates ----------------------------------------------------------------------------------------

_Key = int | tuple[str, str]


def _keys(record: Record) -> list[_Key]:
    if record.request.client_msg_id is None:
        return [record.uuid]
    return [record.uuid, (record.request.send_id, record.request.client_msg_id)]


_PLACE = (
    messages.c.uuid,
    messages.c.conversation,
    messages.c.seq,
    messages.c.send_id,
    messages.c.client_msg_id,
)


_BY_UUIDS = select(*_PLACE).where(messages.c.uuid.in_(bindparam("uuids", expanding=True)))
_INSERT = insert(messages)
_FIND = select(messages).where(messages.c.uuid == bindparam("wanted"))
_HEAD = select(conversations.c.last_seq, conversations.c.version).where(
    conversations.c.conversation == bindparam("key")
)


def _take_seq(database: Database) -> ReturningInsert[Any]:
    """Moves a conversation's counter, or begins it."""
    new = upsert(database, conversations)
    moved = {"last_seq": conversations.c.last_seq + new.excluded.last_seq, "version": conversations.c.version + 1}
    begun = new.on_conflict_do_update(index_elements=[conversations.c.conversation], set_=moved)
    return begun.returning(conversations.c.conversation, conversations.c.last_seq, conversations.c.version)


def _sort_out(records: Sequence[Record], known: dict[_Key, Stored]) -> tuple[list[Stored], list[tuple[Record, Stored]]]:
    """Where each record is or will be stored, and what is new. A seq of 0 is still to be given."""
    outcomes: list[Stored] = []
    fresh: list[tuple[Record, Stored]] = []
    for record in records:
        keys = _keys(record)
        first = next((known[key] for key in keys if key in known), None)
        if first is None:
            outcome = Stored(record.uuid, record.key, 0)
            fresh.append((record, outcome))
            known.update((key, outcome) for key in keys)
        else:
            outcome = Stored(first.uuid, first.conversation, first.seq, duplicate=True)
        outcomes.append(outcome)
    return outcomes, fresh


def _number_repeats(outcomes: Sequence[Stored], fresh: Sequence[tuple[Record, Stored]]) -> None:
    """A message that came twice in one batch has the seq that its first coming was given."""
    numbers = {stored.uuid: stored.seq for _, stored in fresh}
    for outcome in outcomes:
        if outcome.seq == 0:
            outcome.seq = numbers[outcome.uuid]


def _message(record: Record, stored: Stored) -> Message:
    return build_message(record.request, record.uuid, stored.seq, record.accepted_ms)


# --- rows ----------------------------------------------------------------------------------------------

_COPIED = (
    "session_id", "type", "content", "url", "send_id", "send_name", "send_avatar", "receive_id",
    "file_type", "file_name", "file_size", "status",
)  # fmt: skip


def _row(record: Record, message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(message, name) for name in _COPIED}
    row.update(
        uuid=record.uuid,
        conversation=record.key,
        seq=message.seq,
        av_data=message.av_data if message.av_data is not UNSET else None,
        client_msg_id=record.request.client_msg_id,
        created_at=record.accepted_ms,
    )
    return row


def to_message(row: Sequence[Any]) -> Message:
    """A row of the message table, with all its columns in their order, as clients see it.

    In one go: to ask SQLAlchemy's row for each column by its name takes nine times as long, on the loop.
    """
    (
        uuid, _, seq, session_id, kind, content, url, send_id, send_name, send_avatar, receive_id,
        file_type, file_name, file_size, av_data, status, client_msg_id, created_ms, _,
    ) = row  # fmt: skip
    return Message(
        send_id=send_id,
        send_name=send_name,
        send_avatar=send_avatar,
        receive_id=receive_id,
        type=kind,
        content=content,
        url=url,
        file_type=file_type,
        file_name=file_name,
        file_size=file_size,
        created_at=local_time(created_ms),
        av_data=UNSET if av_data is None else av_data,
        uuid=str(uuid),
        session_id=session_id,
        seq=seq,
        status=status,
        client_msg_id=UNSET if client_msg_id is None else client_msg_id,
        created_ms=created_ms,
    )
