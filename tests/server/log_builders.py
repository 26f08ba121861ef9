"""A log and the database behind it, without a node: what is logged is up to the test, and so is when it is folded."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from server_builders import build_record
from sqlalchemy import create_engine
from support import standing_still

from kama.protocol import Message, build_message, encode
from kama.server.store.fold import Fold
from kama.server.store.log import Log
from kama.server.store.log_records import (
    MESSAGES,
    PROGRESS,
    Report,
    read_report,
    write_messages,
    write_progress,
)
from kama.server.store.logged import LoggedDatabase
from kama.server.store.migrate import upgrade

ID = b"the log's own id"
AT = 1_800_000_000_000
# All that a reader can see. Versions only have to differ, and do as the transactions fall; when a message was sent is
# known of more of them where its mark and a receipt that came before it share one.
_SEEN = (
    "SELECT uuid, conversation, seq, send_id, receive_id, content, status, client_msg_id FROM message ORDER BY uuid",
    "SELECT conversation, last_seq FROM conversation ORDER BY conversation",
    "SELECT * FROM cursor ORDER BY user_id, conversation",
)


class Archive:
    """A new database and its log, in a folder. Seqs are given here, as a node gives them."""

    def __init__(self, folder: Path, log: Log | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "kama.db"
        self.folder = folder / "kama.db-log" if log is None else log._folder
        engine = create_engine(f"sqlite:///{self.file}")
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("INSERT INTO log_position VALUES (?, 0)", ID.hex())
        self.log = log or Log(self.folder)
        if log is None:
            self.log.open(ID, 0)
        self.last_seqs: dict[str, int] = {}

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.file, timeout=10, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    def say(self, *pairs: tuple[str, str], **fields: Any) -> list[Message]:
        """One record with a message from the first to the second of each pair."""
        said = []
        for pair in pairs:
            record = build_record(*pair, **fields)
            seq = self.last_seqs[record.key] = self.last_seqs.get(record.key, 0) + 1
            said.append(build_message(record.request, record.uuid, seq, record.accepted_ms))
        self.log.append(MESSAGES, write_messages(map(encode, said)))
        return said

    def note(
        self,
        sent: Sequence[Message] = (),
        cursors: Sequence[tuple[str, str, int, int, int]] = (),
        receipts: Sequence[tuple[str, str, int, int]] = (),
        pushed: dict[str, dict[str, int]] | None = None,
    ) -> None:
        """One record of how far users are."""
        moved = {(user, key): seqs for user, key, *seqs in cursors}
        raised = {(user, key, status): seq for user, key, status, seq in receipts}
        self.log.append(
            PROGRESS, write_progress([int(message.uuid) for message in sent], moved, raised, pushed or {}, AT)
        )

    def fold(self, *, is_durable: bool = False) -> list[Report]:
        with contextlib.closing(Fold(self.file, self.folder, ID, is_durable=is_durable)) as fold:
            return list(fold.up_to(self.log.end))

    @property
    def seen(self) -> list[list[tuple[Any, ...]]]:
        return [self.execute(query) for query in _SEEN]

    @property
    def position(self) -> int:
        return int(self.execute("SELECT position FROM log_position")[0][0])

    def beside(self, folder: Path) -> Archive:
        """Another database, new, for the same log."""
        return Archive(folder, self.log)


class FoldProcess:
    """The process that folds, with chunks of so many bytes."""

    def __init__(self, archive: Archive, chunk_bytes: int = 1) -> None:
        code = f"from kama.server.store import fold; fold._CHUNK_BYTES = {chunk_bytes}; fold.main()"
        command = [sys.executable, "-c", code, str(archive.file), str(archive.folder), ID.hex()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, position: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % position)
        self.process.stdin.flush()

    def report(self) -> Report | None:
        """The next one; None when the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return read_report(line) if line.endswith(b"\n") else None

    def reports_until(self, position: int) -> list[Report]:
        reports: list[Report] = []
        while not reports or reports[-1].folded < position:
            report = self.report()
            assert report is not None, "the process has ended"
            reports.append(report)
        return reports

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> int:
        """It ends with its input."""
        self.process.communicate(timeout=30)
        return self.process.returncode

    def __enter__(self) -> FoldProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


@contextlib.contextmanager
def held_up(database: LoggedDatabase) -> Iterator[None]:
    """The process that folds does nothing for a while."""
    process = database.folder._process
    assert process is not None
    with standing_still(process.pid, database._file):
        yield


@contextlib.contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The system takes what fits, and no more: a short write, and then none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
