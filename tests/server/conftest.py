"""What the server's tests share: an empty database, SQLite, PostgreSQL, or SQLite behind a log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from server_builders import POSTGRES, Loop, messages_in, progress_in

from kama.server.store.database import Database
from kama.server.store.groups import GroupStore
from kama.server.store.logged import LoggedDatabase
from kama.server.store.messages import MessageStore
from kama.server.store.progress import ProgressStore

KINDS = ["sqlite", POSTGRES, "logged"]


def make_database(request: pytest.FixtureRequest, folder: Path) -> Database:
    """An empty one of the kind that the test is run with."""
    url = f"sqlite+aiosqlite:///{folder}/kama.db"
    match request.param:
        case "logged":
            return LoggedDatabase(url)
        case "postgres":
            return Database(request.getfixturevalue("postgres_url"))
    return Database(url)


@pytest.fixture(params=["sqlite", POSTGRES])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same tests over both databases, each on an empty one."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/kama.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Both databases, and SQLite behind a log."""
    opened = make_database(request, tmp_path)
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


@pytest.fixture(params=KINDS)
def loop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Loop]:
    """For property tests: one database for all examples, emptied between them."""
    database = make_database(request, tmp_path)
    with asyncio.Runner() as runner:
        runner.run(database.open())
        yield Loop(runner, database)
        runner.run(database.close())
