"""Tasks that are named, kept and never fail in silence. Bare `asyncio.create_task` is banned by lint."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger("kama.tasks")
_kept: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Start a task, keep a reference until it ends, and log the failure that nobody awaited."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _kept.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _kept.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task failed", task=task.get_name(), exc_info=error)


async def cancel(task: asyncio.Task[Any] | None) -> None:
    """End a task and wait until it has ended; its own failure was logged by `spawn`."""
    if task is None or task.done():
        return
    task.cancel()
    await asyncio.wait([task])
