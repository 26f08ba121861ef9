"""Tasks are named and kept, and none fails in silence."""

from __future__ import annotations

import asyncio
import gc

import pytest
from server_builders import until
from structlog.testing import capture_logs

from kama.server.tasks import cancel, spawn


async def wait_forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("broken")


async def test_a_task_has_its_name_and_gives_its_result() -> None:
    async def answer() -> int:
        return 42

    task = spawn(answer(), name="the answer")
    assert task.get_name() == "the answer"
    assert await task == 42


async def test_a_task_that_nobody_holds_runs_to_its_end() -> None:
    gate, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        done.set()

    spawn(work(), name="worker")
    await asyncio.sleep(0)
    gc.collect()
    gate.set()
    async with asyncio.timeout(5):
        await done.wait()


async def test_a_failure_is_logged_with_the_tasks_name() -> None:
    with capture_logs() as logs:
        task = spawn(fail(), name="worker")
        await asyncio.wait([task])
        await until(lambda: bool(logs))
    assert [(entry["event"], entry["task"], entry["log_level"]) for entry in logs] == [
        ("task failed", "worker", "error")
    ]
    assert isinstance(logs[0]["exc_info"], ValueError)


async def test_a_cancelled_task_is_no_failure() -> None:
    with capture_logs() as logs:
        await cancel(spawn(wait_forever(), name="worker"))
        await asyncio.sleep(0)
    assert logs == []


async def test_cancel_waits_until_the_task_has_cleaned_up() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await wait_forever()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    task = spawn(work(), name="worker")
    await asyncio.sleep(0)
    await cancel(task)
    assert steps == ["cleaned up"]


async def test_cancel_does_not_raise_what_the_task_raised() -> None:
    async def work() -> None:
        try:
            await wait_forever()
        finally:
            raise ValueError("while ending")

    with capture_logs() as logs:
        task = spawn(work(), name="worker")
        await asyncio.sleep(0)
        await cancel(task)
        await until(lambda: bool(logs))
    with pytest.raises(ValueError, match="while ending"):
        task.result()


async def test_cancelling_nothing_or_what_has_ended_is_harmless() -> None:
    task = spawn(asyncio.sleep(0), name="short")
    await task
    await cancel(task)
    await cancel(None)
