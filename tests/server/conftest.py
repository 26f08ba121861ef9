"""What the server's tests share: an empty database, SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from server_builders import Loop, messages_in, progress_in

from kama.server.store.database import Database
from kama.server.store.groups import GroupStore
from kama.server.store.logged import LoggedDatabase
from kama.server.store.messages import MessageStore
from kama.server.store.progress import ProgressStore


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same tests over both databases, each on an empty one."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/kama.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres), "logged"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Both databases, and SQLite behind a log."""
    url = f"sqlite+aiosqlite:///{tmp_path}/kama.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    opened = LoggedDatabase(url) if request.param == "logged" else Database(url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def messages(database: Database) -> MessageStore:
    return messages_in(database)


@pytest.fixture
def groups(database: Database) -> GroupStore:
    return GroupStore(database)


@pytest.fixture
def progress(database: Database) -> ProgressStore:
    return progress_in(database)


@pytest.fixture
def loop(database_url: str) -> Iterator[Loop]:
    """For property tests: one database for all examples, emptied between them."""
    database = Database(database_url)
    with asyncio.Runner() as runner:
        runner.run(database.open())
        yield Loop(runner, database)
        runner.run(database.close())
