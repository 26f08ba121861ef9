"""scripts/services with PostgreSQL: a real one, asked by the driver that a node uses."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from test_services import (
    LOOPBACK,
    SERVICES,
    Environment,
    killed_run,
    listeners,
    listens,
    needs_proc,
    record,
    runs,
    services,
    services_in,
    started_url,
    variables,
)

asyncpg = pytest.importorskip("asyncpg")

VARIABLE = "KAMA_TEST_POSTGRES_URL"

# What each run of the tests with PostgreSQL rests on shows itself there: these are for whoever changes it.
pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(
        not (shutil.which("postgres") or glob("/usr/lib/postgresql/*/bin/postgres")), reason="PostgreSQL is not here"
    ),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """One PostgreSQL for this module, ended with it."""
    with services_in(tmp_path_factory.mktemp("postgres") / "services") as chosen:
        yield chosen


@pytest.fixture
def url(environment: Environment) -> str:
    """Where the running PostgreSQL is: started by the first test that asks, and by the one after an end."""
    return started_url(environment, "postgres", VARIABLE)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Environment]:
    """Services of this test alone, with none started yet."""
    with services_in(tmp_path / "services") as chosen:
        yield chosen


async def ask(url: str, *statements: str) -> list[object]:
    """Run the statements, each by itself; returns the first column of the last one's rows."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return [row[0] for row in await connection.fetch(statements[-1])]
    finally:
        await connection.close()


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def scratch_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("kama-postgres-*"))


async def test_the_database_kama_is_there_when_up_returns(url: str) -> None:
    assert await ask(url, "SELECT current_database()") == ["kama"]


def test_up_prints_the_setting_of_a_node_as_well(url: str, environment: Environment) -> None:
    printed = variables(services(environment, "up", "postgres").stdout)
    assert printed == {VARIABLE: url, "KAMA_STORE__URL": url}


async def test_another_password_is_refused(url: str) -> None:
    password = urlsplit(url).password or ""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(url.replace(password, "guessed"), "SELECT 1")


async def test_what_is_committed_is_on_the_disk(url: str) -> None:
    assert await ask(url, "SELECT setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')") == ["on"] * 2


@needs_proc
def test_it_listens_on_loopback_only(url: str, environment: Environment) -> None:
    assert listeners(record(environment, "postgres")["pid"]) == LOOPBACK


@needs_proc
def test_it_does_not_run_as_root(url: str, environment: Environment) -> None:
    assert Path(f"/proc/{record(environment, 'postgres')['pid']}").stat().st_uid != 0


async def test_a_restart_keeps_port_and_data(url: str, environment: Environment) -> None:
    await ask(url, "CREATE TABLE restarted AS SELECT 7 AS seven", "SELECT 1")
    before = record(environment, "postgres")["pid"]
    assert services(environment, "restart", "postgres").returncode == 0
    assert record(environment, "postgres")["pid"] != before
    assert await ask(url, "SELECT seven FROM restarted") == [7]


async def test_a_restart_does_not_wait_for_clients_to_leave(url: str, environment: Environment) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    pid = record(environment, "postgres")["pid"]
    assert services(environment, "stop", "postgres").returncode == 0
    assert not runs(pid)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, OSError)):
        await connection.fetch("SELECT 1")
    connection.terminate()


async def test_after_a_kill_what_was_committed_is_there_again(url: str, environment: Environment) -> None:
    await ask(url, "CREATE TABLE killed AS SELECT 8 AS eight", "SELECT 1")
    assert services(environment, "kill", "postgres").returncode == 0
    assert not listens(port_of(url))
    assert started_url(environment, "postgres", VARIABLE) == url
    assert await ask(url, "SELECT eight FROM killed") == [8]


async def test_a_paused_one_answers_after_it_is_resumed(url: str, environment: Environment) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    services(environment, "pause", "postgres")
    with pytest.raises(TimeoutError):
        await asyncpg.connect(url.replace("+asyncpg", ""), timeout=0.3)
    services(environment, "resume", "postgres")
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


def test_down_leaves_nothing(fresh: Environment) -> None:
    before = scratch_folders()
    url = started_url(fresh, "postgres", VARIABLE)
    pid = record(fresh, "postgres")["pid"]
    assert services(fresh, "down").returncode == 0
    assert not runs(pid)
    assert not listens(port_of(url))
    assert not Path(fresh["KAMA_SERVICES_DIR"], "postgres").exists()
    assert scratch_folders() == before


def test_run_gives_the_command_a_postgresql_and_ends_it(fresh: Environment) -> None:
    command = f"""
import asyncio, asyncpg, os
url = os.environ["{VARIABLE}"]
async def ask():
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    print(url, await connection.fetchval("SELECT 6 * 7"), os.environ.get("KAMA_STORE__URL"))
    await connection.close()
asyncio.run(ask())
"""
    done = services(fresh, "run", "postgres", "--", sys.executable, "-c", command)
    url, answer, setting = done.stdout.split()
    # Its own helper processes are not taken for something that the command forgot.
    assert (answer, setting, done.stderr) == ("42", "None", "")
    assert not listens(port_of(url))


def test_a_command_can_kill_and_restart_the_postgresql_of_its_run(fresh: Environment) -> None:
    # Its parent, the run, has not asked for the killed process yet: PostgreSQL must not take that for alive.
    drill = f"{sys.executable} {SERVICES} kill postgres && {sys.executable} {SERVICES} restart postgres"
    done = services(fresh, "run", "postgres", "--", "sh", "-c", drill)
    assert (done.returncode, done.stderr) == (0, "")


@needs_proc
def test_what_a_killed_run_left_behind_is_ended_by_the_next(fresh: Environment) -> None:
    before = scratch_folders()
    with killed_run(fresh, "postgres") as seen:
        assert listens(port_of(seen[VARIABLE]))
        own = {**fresh, "KAMA_TEST_REDIS_URL": "redis://127.0.0.1:9/0"}
        assert services(own, "run", "redis", "--", sys.executable, "-c", "").returncode == 0
    assert not listens(port_of(seen[VARIABLE]))
    assert scratch_folders() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as somebody else")
def test_in_a_folder_open_to_others_the_data_is_in_the_servers_folder() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with services_in(folder / "services") as open_to_others:
            started_url(open_to_others, "postgres", VARIABLE)
            assert (folder / "services" / "postgres" / "data" / "PG_VERSION").exists()


def test_a_data_folder_that_cannot_be_made_is_reported_with_the_reason(fresh: Environment) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the programs are run by somebody else if this is root
        for program, text in {"postgres": "exit 0", "initdb": "echo disk is full; exit 1"}.items():
            (folder / program).write_text(f"#!/bin/sh\n{text}\n")
            (folder / program).chmod(0o755)
        done = services({**fresh, "PATH": f"{folder}:{fresh['PATH']}"}, "up", "postgres")
    assert (done.returncode, done.stdout) == (1, "")
    assert "postgres: initdb failed: disk is full" in done.stderr


def test_a_start_that_failed_half_way_does_not_hinder_the_next(fresh: Environment) -> None:
    folder = Path(fresh["KAMA_SERVICES_DIR"], "postgres")
    folder.mkdir(parents=True)
    (folder / "started.json").write_text('{"url": "postgresql+asyncpg://127.0.0.1:9/kama", "port": 9}')
    assert listens(port_of(started_url(fresh, "postgres", VARIABLE)))
