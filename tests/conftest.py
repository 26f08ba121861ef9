"""What every test can use: one event loop library, no settings of whoever runs the tests, nodes, services."""

import gc
import os
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pytest_timeout import Settings
from support import RunningNode, StartNode, make_settings, postgres_database, running_node, service

_TEARDOWN_MAX = 60.0  # seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--snap-update", action="store_true", help="Write the texts that screens are compared with anew")


def pytest_collection_finish() -> None:
    """What is imported and collected stays: to look through all of it again and again took a tenth of a run."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """pytest-timeout lets go of a test once it has failed. A fixture that then waits for what the failed test should
    have done would hold up the run for ever: the process ends instead, and says where it stood."""
    item.config.hook.pytest_timeout_cancel_timer(item=item)
    item.config.hook.pytest_timeout_set_timer(item=item, settings=Settings(_TEARDOWN_MAX, "thread", False, False))
    try:
        return (yield)
    finally:
        item.config.hook.pytest_timeout_cancel_timer(item=item)


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
    with postgres_database(service("KAMA_TEST_POSTGRES_URL")) as url:
        yield url


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
