"""A node that has lived for a while: a million stored messages, and thousands of connections that say nothing."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from benchmarks import relay
from benchmarks.client import Alarm
from benchmarks.load import Figures, Timing, log_in
from benchmarks.servers import KamaServer
from kama.protocol import MessageStatus, conversation_id

CONVERSATIONS = 10_000
MESSAGES_EACH = 100

_MESSAGE = """
INSERT INTO message (uuid, conversation, seq, session_id, type, content, url, send_id, send_name, send_avatar,
                     receive_id, file_type, file_name, file_size, status, created_at)
VALUES (?, ?, ?, ?, 0, ?, '', ?, ?, 'https://example.com/avatar.png', ?, '', '', '0B', ?, ?)
"""
_CONVERSATION = "INSERT INTO conversation (conversation, last_seq, version) VALUES (?, ?, 1)"
_CURSOR = "INSERT INTO cursor (user_id, conversation, sent_seq, delivered_seq, read_seq) VALUES (?, ?, ?, ?, 0)"


class FullNode(KamaServer):
    """A node that starts on a copy of a filled store."""

    name = "kama, full"

    def prepare(self) -> None:
        shutil.copyfile(filled_store(), self.database)


def filled_store() -> Path:
    """The file of a filled store, made on first use and kept in the folder for temporary files."""
    with KamaServer("normal") as node:
        node.stop()
        with closing(sqlite3.connect(node.database)) as database:
            tables = database.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        digest = hashlib.sha256(repr((tables, CONVERSATIONS, MESSAGES_EACH)).encode()).hexdigest()[:12]
        kept = Path(tempfile.gettempdir(), f"kama-benchmark-store-{digest}.db")
        if not kept.exists():
            _fill(node.database)
            shutil.copyfile(node.database, kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
    return kept


def _fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        database.executemany(_MESSAGE, _messages())
        database.executemany(_CONVERSATION, ((_key(number), MESSAGES_EACH) for number in range(CONVERSATIONS)))
        ends = ((f"U{side}{number}", _key(number)) for number in range(CONVERSATIONS) for side in "sr")
        database.executemany(_CURSOR, ((user, key, MESSAGES_EACH, MESSAGES_EACH) for user, key in ends))


def _messages() -> Iterator[tuple[object, ...]]:
    now = int(time.time() * 1e3)
    for number in range(CONVERSATIONS):
        sender, receiver, key = f"Us{number}", f"Ur{number}", _key(number)
        for seq in range(1, MESSAGES_EACH + 1):
            uuid = number * MESSAGES_EACH + seq
            row = (uuid, key, seq, f"S{sender}", f"{seq:010d}{'x' * 80}", sender, sender, receiver)
            yield (*row, int(MessageStatus.SENT), now)


def _key(number: int) -> str:
    return conversation_id(f"Us{number}", f"Ur{number}")


async def run(node: KamaServer, timing: Timing, pairs: int, idle: int) -> tuple[Figures, relay.Sent]:
    """The relay, at a full node in conversations that are there, and with `idle` connections besides."""
    alarm = Alarm()
    others = range(pairs, pairs + idle // 2) if isinstance(node, FullNode) else range(0)
    silent = await log_in(alarm, node, relay.user_ids(others))
    figures, sent = await relay.run(node, timing, pairs, alarm)
    for client in silent:
        client.leave()
    return figures, sent
