"""Whether a round was worth measuring: everything sent has come, once, in order, and kama has stored it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.peer import Failed, Peer, number_of


class _Place(msgspec.Struct):
    seq: int


_decode = msgspec.json.Decoder(_Place).decode


def check_conversation(peer: Peer, sent: int, *, has_seqs: bool, in_order_of_sending: bool) -> None:
    """All messages that `peer` got belong to one conversation, which was sent `sent` of them."""
    numbers = [number_of(message) for message in peer.messages]
    if not in_order_of_sending:
        numbers.sort()
    if numbers != list(range(sent)):
        raise Failed(f"{peer.user_id} got {len(numbers)} of {sent} messages, or got them twice or out of order")
    if has_seqs and [_decode(message).seq for message in peer.messages] != list(range(1, sent + 1)):
        raise Failed(f"{peer.user_id} got messages whose seqs are not 1 to {sent} in order")


def check_store(database: Path, sent: Mapping[str, int]) -> None:
    """The node has ended: its file holds every message, and the seqs of each conversation are 1 to n."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT conversation, count(DISTINCT seq), min(seq), max(seq), count(*) FROM message GROUP BY conversation"
        ).fetchall()
    finally:
        connection.close()
    if {row[0]: row[1:] for row in rows} != {key: (n, 1, n, n) for key, n in sent.items() if n}:
        stored = sum(row[4] for row in rows)
        raise Failed(f"the store holds {stored} messages in {len(rows)} conversations, sent were {sum(sent.values())}")
