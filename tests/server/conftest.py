"""What the server's tests share: a real SQLite database in a folder of the test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from server_builders import Loop

from kama.server.store.database import Database
from kama.server.store.groups import GroupStore
from kama.server.store.messages import MessageStore
from kama.server.store.progress import ProgressStore


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/kama.db"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def messages(database: Database) -> MessageStore:
    return MessageStore(database)


@pytest.fixture
def groups(database: Database) -> GroupStore:
    return GroupStore(database)


@pytest.fixture
def progress(database: Database) -> ProgressStore:
    return ProgressStore(database)


@pytest.fixture
def loop(database_url: str) -> Iterator[Loop]:
    """For property tests: one database for all examples, emptied between them."""
    database = Database(database_url)
    with asyncio.Runner() as runner:
        runner.run(database.open())
        yield Loop(runner, database)
        runner.run(database.close())


@pytest.fixture
def redis_url() -> str:
    """A real Redis, which a full run must not do without."""
    url = os.environ.get("KAMA_TEST_REDIS_URL")
    if url:
        return url
    reason = "KAMA_TEST_REDIS_URL is not set: scripts/services run redis -- pytest"
    if os.environ.get("KAMA_TEST_REQUIRE_SERVICES") == "1" or os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
