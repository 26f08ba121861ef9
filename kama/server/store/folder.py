"""Folder: keeps the process that brings the store up to the log, tells it how far, and hears how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path

import structlog
from sqlalchemy.exc import TimeoutError as StoreTimeoutError

import kama
from kama.backoff import Backoff
from kama.server.store.log_records import Report, Rise, read_report
from kama.server.tasks import cancel, spawn

log = structlog.get_logger("kama.folder")

# What gathers meanwhile shares a transaction; whoever reads does not wait for it. That many bytes are enough: more
# would make a transaction hardly cheaper, and a reader wait longer.
_EVERY = 0.5
_ENOUGH = 2 << 20
_REPORT_MAX = 64 << 20
_RESTART_FIRST = 0.1
_RESTART_MAX = 5.0
_PATIENCE = 10.0


class Folder:
    """`folded` is the position that the store has reached. The process runs from the first need for it to `close`."""

    def __init__(self, database: Path, folder: Path, *, is_durable: bool, forget: Callable[[int], None]) -> None:
        self._database = database
        self._folder = folder
        self._is_durable = is_durable
        self._forget = forget
        self._log_id = b""
        self._target = 0
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._rises: dict[int, list[Rise]] = {}
        self._kept = 0
        self.folded = 0
        self.refused = 0
        self.trouble = ""

    def open(self, log_id: bytes, folded: int) -> None:
        self._log_id = log_id
        self.folded = self._target = self._asked = folded

    def _is_over(self) -> bool:
        return not self._log_id

    # --- what is asked of it

    def reach(self, position: int) -> None:
        """Soon: the store is to be brought up to there."""
        self._target = position
        if position - self._asked >= _ENOUGH:
            self._ask()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self._ask)

    async def wait(self, position: int, patience: float | None = _PATIENCE) -> None:
        """Until the store is there; for at most `patience` seconds, where there is an end to it.

        Raises SQLAlchemy's TimeoutError, which is transient.
        """
        if self.folded >= position:
            return
        future = asyncio.get_running_loop().create_future()
        waiting = (position, future)
        self._waiting.append(waiting)
        self._target = max(self._target, position)
        self._ask()
        try:
            async with asyncio.timeout(patience):
                await future
        except TimeoutError:
            raise StoreTimeoutError(f"the store is behind its log for {patience:g} s: {self.trouble}") from None
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiting)

    async def rises(self, position: int) -> list[Rise]:
        """What the receipts before that position have raised, once the store has them."""
        self._rises[position] = []
        try:
            while self.folded < position:
                with contextlib.suppress(StoreTimeoutError):
                    await self.wait(position)
        finally:
            found = self._rises.pop(position)
        return found

    def _ask(self) -> None:
        self._asked = self._target
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._task = spawn(self._run(), name="folder")
        elif self._process is not None and self._process.stdin is not None:
            self._write_target(self._process.stdin)

    def _write_target(self, stdin: asyncio.StreamWriter) -> None:
        if not stdin.is_closing():
            stdin.write(b"%d\n" % self._target)

    # --- the process

    async def _run(self) -> None:
        """Again and again: what is in the log was accepted."""
        backoff = Backoff(_RESTART_FIRST, _RESTART_MAX)
        while not self._is_over():
            before = self.folded
            try:
                code = await self._serve()
                why = f"ended with {code}"
            except Exception as error:
                code, why = None, f"failed: {error!r}"
            if self.folded > before:
                backoff.begin_anew()
            if self._is_over():
                return
            self.trouble = f"the folding process {why}: its words are on the node's standard error"
            log.error("the process that folds the log into the store has ended: again", code=code, delay=backoff.delay)
            await asyncio.sleep(backoff.take())

    async def _serve(self) -> int:
        # The kama that runs here, whatever the folder has that this was started in; and out of the terminal's group,
        # where a Ctrl-C would reach it.
        paths = [str(Path(kama.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-P", "-m", "kama.server.store.fold", str(self._database), str(self._folder)]
        process = await asyncio.create_subprocess_exec(
            *(*command, self._log_id.hex(), *(["--durable"] if self._is_durable else [])),
            stdin=PIPE,
            stdout=PIPE,
            limit=_REPORT_MAX,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        try:
            self._write_target(process.stdin)
            if self._is_over():
                process.stdin.close()
            while line := await process.stdout.readline():
                self._take(read_report(line))
            return await process.wait()
        finally:
            self._process = None
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _take(self, report: Report) -> None:
        if report.trouble:
            if report.trouble != self.trouble:
                log.warning("the log is not folded into the store: trying again", error=report.trouble)
            self.trouble = report.trouble
            return
        self.trouble = ""
        self.folded = max(self.folded, report.folded)
        if report.refused:
            self.refused += report.refused
            log.error("messages that the database refused are in refused.jsonl, beside the log", count=report.refused)
        for position, rises in report.rises:
            if position in self._rises:
                self._rises[position] = rises
        for position, future in self._waiting:
            if position <= self.folded and not future.done():
                future.set_result(None)
        self._waiting = [(position, future) for position, future in self._waiting if position > self.folded]
        if report.kept > self._kept:
            self._kept = report.kept
            self._forget(report.kept)

    async def close(self, patience: float) -> None:
        """Fold what is left, for at most that many seconds; the next start does the rest. Twice is harmless."""
        if self._is_over():
            return
        if self._target > self.folded:
            with contextlib.suppress(StoreTimeoutError):
                await self.wait(self._target, patience)
        self._log_id = b""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is None:
            return
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.wait([self._task], timeout=patience)
        await cancel(self._task)
