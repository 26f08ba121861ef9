"""Folder: the folding process is kept at work, and who waits for it is told what it does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from log_builders import ID, Archive, held_up
from server_builders import build_record, until
from structlog.testing import capture_logs

from kama.server.store import folder as folder_module
from kama.server.store.folder import Folder
from kama.server.store.logged import LoggedDatabase
from kama.server.store.logged_messages import LoggedMessages


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
async def folder(archive: Archive) -> AsyncIterator[Folder]:
    made = Folder(archive.file, archive.folder, is_durable=False, forget=archive.log.forget)
    made.open(ID, 0)
    yield made
    await made.close(patience=5)
    archive.log.close()


async def test_it_folds_by_itself_soon_after_it_is_told_of_more(archive: Archive, folder: Folder) -> None:
    archive.say(("U1", "U2"))
    folder.reach(archive.log.end)
    await until(lambda: folder.folded == archive.log.end)
    assert archive.position == archive.log.end


async def test_what_is_enough_for_a_transaction_is_folded_before_its_time(
    archive: Archive, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_EVERY", 3600)
    archive.say(("U1", "U2"))
    folder.reach(archive.log.end)
    assert folder._task is None, "not yet"
    monkeypatch.setattr(folder_module, "_ENOUGH", 2 * archive.log.end)
    for _ in range(2):
        archive.say(("U1", "U2"))
        archive.say(("U1", "U2"))
        folder.reach(archive.log.end)
        await until(lambda: folder.folded == archive.log.end)
    archive.say(("U1", "U2"))
    folder.reach(archive.log.end)
    assert folder._timer is not None, "what was asked for does not count again"


async def test_segments_that_are_folded_are_removed(archive: Archive, folder: Folder) -> None:
    archive.log._segment_bytes = 1
    for _ in range(5):
        archive.say(("U1", "U2"))
    await folder.wait(archive.log.end)
    await until(lambda: len(list(archive.folder.glob("*.log"))) == 1)


async def test_a_process_that_was_killed_is_followed_by_another(archive: Archive, folder: Folder) -> None:
    for _ in range(3):
        archive.say(("U1", "U2"))
        await folder.wait(archive.log.end)
        assert folder._process is not None
        with capture_logs():
            os.kill(folder._process.pid, signal.SIGKILL)
            await until(lambda: bool(folder.trouble))
            assert folder.trouble.startswith("the folding process ended with -9")
    archive.say(("U1", "U2"))
    await folder.wait(archive.log.end)
    assert (folder.trouble, archive.position) == ("", archive.log.end)


async def test_who_waits_is_answered_when_the_last_process_ended_without_a_word(
    archive: Archive, folder: Folder
) -> None:
    await start(archive, folder)
    archive.say(("U1", "U2"))
    assert folder._process is not None
    os.kill(folder._process.pid, signal.SIGSTOP)
    waiting = asyncio.get_running_loop().create_task(folder.wait(archive.log.end))
    archive.fold()
    with capture_logs():
        os.kill(folder._process.pid, signal.SIGKILL)
        await waiting


async def start(archive: Archive, folder: Folder) -> None:
    """Until the process is there and has nothing to do."""
    archive.say(("U1", "U2"))
    await folder.wait(archive.log.end)


async def test_a_process_that_cannot_begin_is_told_of_and_tried_again(
    archive: Archive, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.say(("U1", "U2"))
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(folder_module.sys, "executable", "/bin/false")
        folder.reach(archive.log.end)
        await until(lambda: len(logs) >= 2)
        assert folder.trouble.startswith("the folding process ended with 1")
    with capture_logs():
        await folder.wait(archive.log.end)
    assert folder.trouble == ""
    assert {entry["log_level"] for entry in logs} == {"error"}


async def test_what_the_database_says_is_told_until_it_works_again(archive: Archive, folder: Folder) -> None:
    archive.say(("U1", "U2"))
    archive.execute("ALTER TABLE message RENAME TO away")
    with capture_logs() as logs:
        folder.reach(archive.log.end)
        await until(lambda: "no such table: message" in folder.trouble)
        await until(lambda: bool(logs))
        archive.execute("ALTER TABLE away RENAME TO message")
        await folder.wait(archive.log.end)
    assert folder.trouble == ""
    assert [entry["event"] for entry in logs] == ["the log is not folded into the store: trying again"]


async def test_refused_messages_are_counted_and_told(archive: Archive, folder: Folder) -> None:
    archive.say(("U1", "U2"))
    await folder.wait(archive.log.end)
    archive.execute("UPDATE message SET seq = 2")
    archive.say(("U1", "U2"))
    with capture_logs() as logs:
        await folder.wait(archive.log.end)
    assert folder.refused == 1
    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_closing_folds_what_is_left_and_ends_the_process(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    folder = Folder(archive.file, archive.folder, is_durable=False, forget=archive.log.forget)
    folder.open(ID, 0)
    archive.say(("U1", "U2"))
    folder.reach(archive.log.end)
    await folder.close(patience=10)
    assert archive.position == archive.log.end
    assert folder._process is None
    archive.log.close()


async def test_closing_is_not_held_up_by_a_process_that_does_nothing(tmp_path: Path) -> None:
    """What is left is folded by the next start."""
    url = f"sqlite+aiosqlite:///{tmp_path}/kama.db"
    database = LoggedDatabase(url)
    await database.open()
    await LoggedMessages(database).insert_batch([build_record()])
    await database.ping()
    with capture_logs(), held_up(database):
        process = database.folder._process
        assert process is not None
        await LoggedMessages(database).insert_batch([build_record()])
        async with asyncio.timeout(5):
            await database.folder.close(patience=0.1)
        assert process.returncode is not None
    await database.close()
    again = LoggedDatabase(url)
    await again.open()
    assert (await LoggedMessages(again).head("U1_U2"))[0] == 2
    await again.close()
