"""Small things that the server's tests build again and again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import Phase, settings
from sqlalchemy import delete

from kama.protocol import ChatMessageRequest, Message, MessageStatus, MessageType, build_message, conversation_id
from kama.server.auth import Identity
from kama.server.broker import Record
from kama.server.message_back import MessageBack
from kama.server.store.database import Database
from kama.server.store.logged import LoggedDatabase
from kama.server.store.logged_messages import LoggedMessages
from kama.server.store.logged_progress import LoggedProgress
from kama.server.store.messages import MessageStore
from kama.server.store.progress import Progress, ProgressStore, StatusChange, sent_to
from kama.server.store.schema import log_positions, metadata

NOON_MS = 1_800_000_000_000
# Examples that go through a database: shrinking a failed one would take longer than a test may.
THROUGH_A_DATABASE = settings(deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
_uuids = itertools.count(1)

POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)
# For what a log in front of the database does in another way, or not at all.
SQL_ALONE = pytest.mark.parametrize("database", ["sqlite", POSTGRES], indirect=True)


def build_request(send_id: str = "U1", receive_id: str = "U2", **fields: Any) -> ChatMessageRequest:
    fields.setdefault("type", MessageType.TEXT)
    fields.setdefault("content", "hello")
    return ChatMessageRequest(send_id=send_id, receive_id=receive_id, **fields)


def build_record(send_id: str = "U1", receive_id: str = "U2", *, uuid: int | None = None, **fields: Any) -> Record:
    uuid = next(_uuids) if uuid is None else uuid
    request = build_request(send_id, receive_id, **fields)
    return Record(conversation_id(send_id, receive_id), request, uuid, NOON_MS + uuid)


def build_stored(seq: int, *, uuid: int | None = None, status: int = 0, **fields: Any) -> Message:
    """A message of the conversation U1_U2 as the store would give it."""
    uuid = seq if uuid is None else uuid
    message = build_message(build_request(**fields), uuid, seq, NOON_MS + uuid)
    message.status = status
    return message


def identity_of(user_id: str, role: Any = "user") -> Identity:
    return Identity(user_id, role, expires_at=4e9)


def messages_in(database: Database) -> MessageStore:
    return LoggedMessages(database) if isinstance(database, LoggedDatabase) else MessageStore(database)


def progress_in(database: Database) -> ProgressStore:
    return LoggedProgress(database) if isinstance(database, LoggedDatabase) else ProgressStore(database)


def build_change(uuid: int, user_id: str = "U2") -> StatusChange:
    """A message to U2 whose seq is its id, sent."""
    return StatusChange(uuid, "U1_U2", uuid, "U1", False, MessageStatus.SENT, user_id)


def written_to(user_id: str, *backs: MessageBack | None) -> Progress:
    """These messages were written to a socket of the user."""
    return Progress(sent=[sent_to(user_id, back) for back in backs if back is not None])


async def wipe(database: Database) -> None:
    """Stores that are to see it empty are made after this: they may remember."""
    async with database.write() as tx:
        for table in reversed(metadata.sorted_tables):
            if table is not log_positions:
                await tx.execute(delete(table))


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


class Loop:
    """A loop and a database for property tests, which are not coroutines themselves."""

    def __init__(self, runner: asyncio.Runner, database: Database) -> None:
        self._runner = runner
        self.database = database
        self.messages = messages_in(database)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    def run_on_empty(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """One example: on tables as they were on the first day."""
        self.run(wipe(self.database))
        self.messages = messages_in(self.database)
        return self.run(coroutine)
