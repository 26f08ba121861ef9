"""What every test can use: one event loop library, no settings of whoever runs the tests, nodes, services."""

import asyncio
import os
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from support import RunningNode, StartNode, make_settings, running_node


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--snap-update", action="store_true", help="Write the texts that screens are compared with anew")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the settings, the data or the home of a person."""
    for name in list(os.environ):
        if name.startswith("KAMA_") and not name.startswith(("KAMA_TEST_", "KAMA_SERVICES_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "data"))


@pytest.fixture
def redis_url() -> str:
    """A real Redis that may be emptied."""
    return service("KAMA_TEST_REDIS_URL")


@pytest.fixture
def kafka_servers() -> str:
    """Real Kafka brokers. Topics and groups are the test's own, by names that nobody else has."""
    return service("KAMA_TEST_KAFKA_BOOTSTRAP_SERVERS")


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database of the test's own on a real PostgreSQL."""
    server = make_url(service("KAMA_TEST_POSTGRES_URL"))
    name = f"test_{uuid.uuid4().hex}"
    in_postgres(server, f"CREATE DATABASE {name}")
    yield server.set(database=name).render_as_string(hide_password=False)
    in_postgres(server, f"DROP DATABASE {name} WITH (FORCE)")


def service(variable: str) -> str:
    """Where a real service is. A full run must not do without it, another one skips what needs it."""
    url = os.environ.get(variable)
    if url:
        return url
    if os.environ.get("CI") == "true" or os.environ.get("KAMA_TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{variable} is not set")
    pytest.skip(f"{variable} is not set: run `make test`, or set it")


def in_postgres(server: URL, statement: str) -> None:
    async def execute() -> None:
        engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.exec_driver_sql(statement)
        await engine.dispose()

    # In a thread of its own: the test's loop is not this fixture's.
    thread = threading.Thread(target=lambda: asyncio.run(execute()))
    thread.start()
    thread.join()


@pytest.fixture
async def start_node(tmp_path: Path) -> AsyncIterator[StartNode]:
    """Starts nodes behind real uvicorn on free ports: `await start_node(limits={"burst": 5})`. Ends them after."""
    async with AsyncExitStack() as stack:

        async def start(**sections: dict[str, object]) -> RunningNode:
            return await stack.enter_async_context(running_node(make_settings(tmp_path, **sections)))

        yield start


@pytest.fixture
async def node(start_node: StartNode) -> RunningNode:
    """A node with its defaults, but for rate limits that no test runs into by accident."""
    return await start_node()
