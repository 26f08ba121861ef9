"""ProgressStore: who has been sent, has received and has read what; and where a login has to catch up from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, bindparam, case, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kama.protocol import MessageStatus
from kama.server.message_back import MessageBack
from kama.server.store.database import Database
from kama.server.store.schema import conversations, cursors, messages

_CHUNK = 500
_Row = Row[Any]


class StatusChange(Struct, frozen=True, gc=False):
    """A message whose status rose, and by whom. `alone`: that of the messages before it may not have."""

    uuid: int
    conversation: str
    seq: int
    send_id: str
    has_client_id: bool
    status: MessageStatus
    user_id: str
    alone: bool = False


_SENT = MessageStatus.SENT


def sent_to(user_id: str, back: MessageBack, alone: bool = False) -> StatusChange:
    """What it is to a message that it was written to this user; `alone`: past a gap that the user has still to pull."""
    return StatusChange(back.uuid, back.conversation, back.seq, back.send_id, back.has_client_id, _SENT, user_id, alone)


@dataclass(slots=True)
class Progress:
    """One batch. `sent`: what has reached a receiver. `cursors`: (user, conversation) -> the highest [sent, delivered,
    read] seqs. `receipts`: (user, conversation, status) -> seq, for messages that others sent up to it. `pushed`:
    conversation -> user -> sent seq, where that is all that moves."""

    sent: list[StatusChange] = field(default_factory=list)
    cursors: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    receipts: dict[tuple[str, str, MessageStatus], int] = field(default_factory=dict)
    pushed: dict[str, dict[str, int]] = field(default_factory=dict)

    def pushed_to(self, user_id: str, conversation: str) -> int:
        """The sent seq of `pushed`; 0 where there is none."""
        return self.pushed.get(conversation, _NOBODY).get(user_id, 0)

    @property
    def moves(self) -> Iterator[tuple[str, str, int, int, int]]:
        """The cursors: user, conversation, sent, delivered and read seq."""
        for (user, conversation), (sent, delivered, read) in self.cursors.items():
            yield user, conversation, max(sent, self.pushed_to(user, conversation)), delivered, read
        for conversation, seqs in self.pushed.items():
            for user, seq in seqs.items():
                if (user, conversation) not in self.cursors:
                    yield user, conversation, seq, 0, 0

    def __bool__(self) -> bool:
        return bool(self.pushed or self.sent or self.cursors or self.receipts)

    @property
    def marks(self) -> int:
        """How many there are."""
        return len(self.sent) + sum(map(len, self.pushed.values())) + len(self.cursors)


_NOBODY: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Position:
    """How far a user is in one conversation."""

    conversation: str
    sent_seq: int
    last_seq: int


class ProgressStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, progress: Progress) -> tuple[list[StatusChange], Mapping[str, int]]:
        """One transaction. Gives each status that rose, and the new versions of the conversations touched.

        Nothing goes back: running it twice, or late, changes nothing.
        """
        now = time.time_ns() // 1_000_000
        changes: list[StatusChange] = []
        async with self._database.write() as tx:
            sent = {change.uuid: change for change in progress.sent}
            uuids = list(sent)
            for start in range(0, len(uuids), _CHUNK):
                rows = await self._mark_sent(tx, uuids[start : start + _CHUNK], now)
                changes += [sent[row.uuid] for row in rows]
            for (user_id, conversation, status), seq in progress.receipts.items():
                rows = await self._mark_received(tx, user_id, conversation, status, seq)
                changes += [_change(row, status, user_id) for row in rows]
            await self._move_cursors(tx, sorted(progress.moves))
            versions = await self._touch(tx, sorted({change.conversation for change in changes}))
        return changes, versions

    async def _mark_sent(self, tx: AsyncConnection, uuids: Sequence[int], now: int) -> Sequence[_Row]:
        rows: Sequence[_Row] = (await tx.execute(_MARK_SENT, {"uuids": uuids, "now": now})).all()
        return rows

    async def _mark_received(
        self, tx: AsyncConnection, user_id: str, conversation: str, status: MessageStatus, seq: int
    ) -> Sequence[_Row]:
        """A receipt covers all earlier messages; those up to the user's cursor were covered by the last one."""
        covered = cursors.c.read_seq if status == MessageStatus.READ else cursors.c.delivered_seq
        since = (
            select(covered)
            .where(cursors.c.user_id == user_id, cursors.c.conversation == conversation)
            .scalar_subquery()
        )
        statement = (
            update(messages)
            .where(
                messages.c.conversation == conversation,
                messages.c.seq > since,
                messages.c.seq <= seq,
                messages.c.status < status,
                or_(messages.c.send_id != user_id, messages.c.receive_id == user_id),
            )
            .values(status=status)
        )
        return (await tx.execute(statement.returning(*_CHANGED))).all()

    async def _move_cursors(self, tx: AsyncConnection, moves: Sequence[tuple[str, str, int, int, int]]) -> None:
        names = ("user", "key", "to_sent_seq", "to_delivered_seq", "to_read_seq")
        if moves:
            await tx.execute(_MOVE_CURSOR, [dict(zip(names, move, strict=True)) for move in moves])

    async def _touch(self, tx: AsyncConnection, keys: Sequence[str]) -> dict[str, int]:
        versions: dict[str, int] = {}
        for start in range(0, len(keys), _CHUNK):
            rows = await tx.execute(_TOUCH, {"keys": keys[start : start + _CHUNK]})
            versions.update((row.conversation, row.version) for row in rows)
        return versions

    async def positions(self, user_id: str) -> list[Position]:
        """Where the user is in each of its conversations."""
        async with self._database.read() as connection:
            return [Position(*row) for row in await connection.execute(_POSITIONS, {"user": user_id})]

    def positions_now(self, user_id: str) -> list[Position] | None:
        """The same where it can be told without waiting; else None."""
        return None

    async def is_participant(self, user_id: str, conversation: str) -> bool:
        query = select(cursors.c.user_id).where(cursors.c.user_id == user_id, cursors.c.conversation == conversation)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None


_CHANGED = (
    messages.c.uuid,
    messages.c.conversation,
    messages.c.seq,
    messages.c.send_id,
    messages.c.client_msg_id,
)


def _greatest(name: str) -> ColumnElement[int]:
    given: ColumnElement[int] = bindparam(f"to_{name}")
    return case((given > cursors.c[name], given), else_=cursors.c[name])


# Made once: to put a statement together takes SQLAlchemy as long as to run it.
_MARK_SENT = (
    update(messages)
    .where(messages.c.uuid.in_(bindparam("uuids", expanding=True)), messages.c.status < MessageStatus.SENT)
    .values(status=MessageStatus.SENT, send_at=bindparam("now"))
    .returning(messages.c.uuid)
)
_MOVE_CURSOR = (
    update(cursors)
    .where(cursors.c.user_id == bindparam("user"), cursors.c.conversation == bindparam("key"))
    .values({name: _greatest(name) for name in ("sent_seq", "delivered_seq", "read_seq")})
)
_TOUCH = (
    update(conversations)
    .where(conversations.c.conversation.in_(bindparam("keys", expanding=True)))
    .values(version=conversations.c.version + 1)
    .returning(conversations.c.conversation, conversations.c.version)
)
_POSITIONS = (
    select(cursors.c.conversation, cursors.c.sent_seq, conversations.c.last_seq)
    .join(conversations, conversations.c.conversation == cursors.c.conversation)
    .where(cursors.c.user_id == bindparam("user"))
    .order_by(cursors.c.conversation)
)


def _change(row: _Row, status: MessageStatus, user_id: str) -> StatusChange:
    return StatusChange(
        row.uuid, row.conversation, row.seq, row.send_id, row.client_msg_id is not None, status, user_id
    )
