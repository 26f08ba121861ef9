"""Whether a round was worth measuring: kama has stored all that was sent, once, and each pair's in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from benchmarks.client import Failed

# A message's content begins with its number, from 0 on in each conversation.
_COUNTED = """
SELECT conversation, count(*), count(DISTINCT seq), min(seq), max(seq), count(DISTINCT number), max(number),
       sum(number + 1 + :before != seq)
FROM (SELECT conversation, seq, CAST(substr(content, 1, 10) AS INTEGER) AS number FROM message WHERE seq > :before)
GROUP BY conversation
"""


def check_store(database: Path, sent: Mapping[str, int], before: int = 0) -> None:
    """The node has ended: its file holds every message once, the seqs of each conversation follow on `before`, and a
    pair's messages have them in the order of their sending. Raises Failed."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = connection.execute(_COUNTED, {"before": before}).fetchall()
    finally:
        connection.close()
    found = {row[0]: row[1:7] for row in rows}
    expected = {key: (n, n, before + 1, before + n, n, n - 1) for key, n in sent.items() if n}
    if found != expected:
        stored = sum(row[1] for row in rows)
        raise Failed(f"the store holds {stored} messages in {len(rows)} conversations, sent were {sum(sent.values())}")
    if any(row[7] for row in rows if not row[0].startswith("G")):
        raise Failed("the store has messages of a pair in another order than they were sent in")
