"""The process that brings the store up to the log: `python -m kama.server.store.fold DATABASE LOG ID [--durable]`.

Who started it writes a position a line; it folds up to the last one, in transactions that hold the new position
too, and answers a Report a line. Whatever it is doing when it ends, the next one goes on from the store's own position.
It ends with its input. A process of its own: within the node, SQLite would take turns with the loop for the
interpreter, and halve what both can do.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from itertools import chain, groupby
from pathlib import Path

from kama.backoff import Backoff
from kama.server.store.chunk import AT_ONCE, INSERT_MANY, INSERT_ONE, Chunk, Row
from kama.server.store.log_reading import Record, read_log
from kama.server.store.log_records import ProgressRecord, Report, Rise, write_report
from kama.server.store.whole_file import write_whole

_NICE = 5
_CHUNK_BYTES = 4 << 20
_CHECKPOINT_BYTES = 32 << 20
_RETRY_FIRST = 0.05
_RETRY_MAX = 2.0
_PAGES_BETWEEN_CHECKPOINTS = 4000
_SEQ = """
INSERT INTO conversation (conversation, last_seq, version) VALUES (?, ?, 1)
ON CONFLICT (conversation) DO UPDATE SET last_seq = max(last_seq, excluded.last_seq), version = version + 1
"""
_OPEN_CURSOR = """
INSERT INTO cursor (user_id, conversation, sent_seq, delivered_seq, read_seq) VALUES (?, ?, 0, 0, 0)
ON CONFLICT DO NOTHING
"""
_MOVE_CURSOR = """
UPDATE cursor
SET sent_seq = max(sent_seq, ?), delivered_seq = max(delivered_seq, ?), read_seq = max(read_seq, ?)
WHERE user_id = ? AND conversation = ?
"""
_MARK_SENT = "UPDATE message SET status = 1, send_at = ? WHERE uuid = ? AND status < 1 RETURNING conversation"
# A receipt covers all earlier messages; those up to the user's cursor were covered by the last one.
_RECEIPT = """
UPDATE message SET status = :status
WHERE conversation = :conversation AND seq <= :seq AND status < :status AND (send_id != :user OR receive_id = :user)
AND seq > (SELECT CASE :status WHEN 3 THEN read_seq ELSE delivered_seq END FROM cursor
           WHERE user_id = :user AND conversation = :conversation)
RETURNING uuid, conversation, seq, send_id, client_msg_id
"""
# What was refused is a line of the error and the row: id, conversation, seq, and so on. People may write into the file.
_PLACE_OF_REFUSED = re.compile(rb'^\["(?:[^"\\]|\\.)*",(-?\d+,"[^"]*",\d+),', re.MULTILINE)


class Fold:
    """One connection to the database, which nobody else writes messages to."""

    def __init__(self, database: Path, folder: Path, log_id: bytes, *, is_durable: bool) -> None:
        self._folder = folder
        self._log_id = log_id
        self._is_durable = is_durable
        self._connection = sqlite3.connect(database, timeout=10, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = normal")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_BETWEEN_CHECKPOINTS}")
        self._connection.execute("PRAGMA cache_size = -65536")
        self._kept = 0
        self._checkpoint_at = 0

    def up_to(self, target: int) -> Iterator[Report]:
        """A report after each transaction. Raises sqlite3.Error, and LogBroken."""
        told = 0
        while (position := self.position()) < target:
            chunk = Chunk(_some(read_log(self._folder, self._log_id, position, target)))
            try:
                report = self._store(chunk, position)
            except sqlite3.IntegrityError:
                report = self._store(chunk, position, one_by_one=True)
            told = report.folded
            yield report
        if told < position:
            # Another process has done it, and may have ended before it could say so.
            yield Report(folded=position, kept=self._keep(position))

    def position(self) -> int:
        position: int = self._connection.execute("SELECT position FROM log_position").fetchone()[0]
        return position

    def _store(self, chunk: Chunk, position: int, *, one_by_one: bool = False) -> Report:
        report = Report(folded=chunk.end)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self.position() != position:
                raise sqlite3.OperationalError("another process folds the same log")
            if one_by_one:
                report.refused = self._insert_what_goes(chunk)
            else:
                for rows in chunk.rows():
                    self._insert(rows)
            connection.executemany(_SEQ, chunk.seqs.items())
            connection.executemany(_OPEN_CURSOR, chunk.new)
            touched = self._mark_sent(chunk.sent)
            report.rises = [(end, self._receive(progress)) for end, progress in chunk.receipts]
            touched |= {rise.conversation for _, rises in report.rises for rise in rises}
            connection.executemany(_MOVE_CURSOR, [(*seqs, *key) for key, seqs in sorted(chunk.cursors.items())])
            connection.executemany(
                "UPDATE conversation SET version = version + 1 WHERE conversation = ?",
                [(conversation,) for conversation in sorted(touched - chunk.seqs.keys())],
            )
            connection.execute("UPDATE log_position SET position = ?", (chunk.end,))
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        report.kept = self._keep(chunk.end)
        return report

    def _insert(self, rows: list[Row]) -> None:
        """Raises sqlite3.IntegrityError, and then the transaction may be over."""
        for length, run in groupby(sorted(rows, key=len), len):
            alike = list(run)
            rest = len(alike) // AT_ONCE * AT_ONCE
            sets = (tuple(chain.from_iterable(alike[at : at + AT_ONCE])) for at in range(0, rest, AT_ONCE))
            self._connection.executemany(INSERT_MANY[length], sets)
            self._connection.executemany(INSERT_ONE[length], alike[rest:])

    def _insert_what_goes(self, chunk: Chunk) -> int:
        """The rest goes into a file beside the log: it was accepted, and is for a person to look at."""
        refused: list[bytes] = []
        for row in chain.from_iterable(chunk.rows()):
            try:
                self._connection.execute(INSERT_ONE[len(row)], row)
            except sqlite3.IntegrityError as error:
                refused.append(write_report([str(error), *row]) + b"\n")
        _put_aside(self._folder / "refused.jsonl", refused)
        return len(refused)

    def _mark_sent(self, sent: dict[int, tuple[int, int]]) -> set[str]:
        touched: set[str] = set()
        for uuid, (_, at) in sent.items():
            touched.update(row[0] for row in self._connection.execute(_MARK_SENT, (at, uuid)))
        return touched

    def _receive(self, progress: ProgressRecord) -> list[Rise]:
        rises: list[Rise] = []
        for user, conversation, status, seq in progress.receipts:
            values = {"user": user, "conversation": conversation, "status": status, "seq": seq}
            rows = self._connection.execute(_RECEIPT, values).fetchall()
            rises += [
                # Not `client_msg_id IS NOT NULL`: SQLite 3.40 says 1 to that, here, whatever it is.
                Rise(uuid, key, number, send_id, client_msg_id is not None, status, user)
                for uuid, key, number, send_id, client_msg_id in rows
            ]
        return rises

    def _keep(self, folded: int) -> int:
        """How much of the log the machine itself may now forget: what a power cut cannot take from the store."""
        if not self._is_durable:
            return folded
        if folded >= self._checkpoint_at:
            # If it fails, the log is needed for longer, and no more: what was committed is there, and to be told of.
            with contextlib.suppress(sqlite3.Error):
                busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
                if not busy:
                    self._kept = folded
                    self._checkpoint_at = folded + _CHECKPOINT_BYTES
        return self._kept

    def close(self) -> None:
        self._connection.close()


def _put_aside(path: Path, lines: list[bytes]) -> None:
    """On the disk before the database says that it needs the log no more: where that fails or ends before, they come
    once more, and are there already."""
    before = path.read_bytes() if path.exists() else b""
    if before and not before.endswith(b"\n"):
        before += b"\n"
    there = set(_PLACE_OF_REFUSED.findall(before))
    if fresh := [line for line in lines if there.isdisjoint(_PLACE_OF_REFUSED.findall(line))]:
        write_whole(path, b"".join([before, *fresh]))


def _some(records: Iterator[Record]) -> Iterator[Record]:
    """As many as one transaction takes."""
    size = 0
    for record in records:
        yield record
        size += len(record.content)
        if size >= _CHUNK_BYTES:
            return


def _wait_for_target() -> int | None:
    """The last position that was written to us; None once nobody writes any more."""
    lines = b""
    while not lines.endswith(b"\n"):
        data = os.read(sys.stdin.fileno(), 1 << 16)
        if not data:
            return None
        lines += data
    return int(lines.split()[-1])


def _tell(report: Report) -> None:
    sys.stdout.buffer.write(write_report(report) + b"\n")
    sys.stdout.buffer.flush()


def _fold_until(fold: Fold, target: int) -> None:
    """However long it takes: what is in the log was accepted."""
    backoff = Backoff(_RETRY_FIRST, _RETRY_MAX)
    while True:
        try:
            for report in fold.up_to(target):
                _tell(report)
                backoff.begin_anew()
            return
        except (sqlite3.Error, OSError) as error:
            _tell(Report(trouble=f"{type(error).__name__}: {error}"))
            time.sleep(backoff.take())


def _step_back() -> None:
    """On a core that both want, the node goes first as soon as it wakes up. Not lower: who waits for the store would
    wait for seconds beside a busy node."""
    with contextlib.suppress(OSError, AttributeError):  # the latter where it is not Linux
        os.nice(_NICE)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    parser = argparse.ArgumentParser(prog="kama.server.store.fold", description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("log_id", type=bytes.fromhex)
    parser.add_argument("--durable", action="store_true")
    options = parser.parse_args()
    # It goes when the node goes, which lets it finish: a Ctrl-C in the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _step_back()
    gc.disable()  # nothing here is part of a circle, and there are millions of rows
    fold = Fold(options.database, options.folder, options.log_id, is_durable=options.durable)
    # Who started it may be gone while it works: then nobody is told, and the store has it all the same.
    with contextlib.closing(fold), contextlib.suppress(BrokenPipeError):
        while (target := _wait_for_target()) is not None:
            _fold_until(fold, target)


if __name__ == "__main__":
    main()
