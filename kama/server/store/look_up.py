"""LookUp: what of a batch the database knows already, in one trip to a thread of its own.

Through SQLAlchemy it would take a transaction of several statements, each a trip of its own, which costs a lone
message more than all the rest of its way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any

from kama.protocol import encode
from kama.server.broker import Stored
from kama.server.store.one_hop import OneHopConnection, connect
from kama.server.store.pairs import Pair

# One parameter that SQLite unfolds, and one statement whatever its size: for each that is run, the thread waits for
# the interpreter that the loop holds.
_LAST_SEQS = """
SELECT conversation, last_seq FROM json_each(?) AS given JOIN conversation ON conversation = given.value
"""
_PAIRS = """
SELECT send_id, client_msg_id, uuid, conversation, seq FROM json_each(?) AS given JOIN message
ON send_id = json_extract(given.value, '$[0]') AND client_msg_id = json_extract(given.value, '$[1]')
AND client_msg_id IS NOT NULL
"""


class LookUp:
    """Reads what is committed. Raises sqlite3.Error."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._connection: OneHopConnection | None = None

    async def find(
        self, conversations: Collection[str], pairs: Collection[Pair]
    ) -> tuple[Mapping[str, int], Mapping[Pair, Stored]]:
        """The last seq of each conversation that has one, and where the message of each pair is that there is."""
        if self._connection is None:
            self._connection = await connect(self._database, timeout=10)
        seqs, places = await self._connection.in_thread(_find, list(conversations), list(pairs))
        return dict(seqs), {(send_id, key): Stored(*place) for send_id, key, *place in places}

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _find(connection: sqlite3.Connection, conversations: list[str], pairs: list[Pair]) -> tuple[list[Any], list[Any]]:
    seqs = connection.execute(_LAST_SEQS, (encode(conversations).decode(),)).fetchall() if conversations else []
    places = connection.execute(_PAIRS, (encode(pairs).decode(),)).fetchall() if pairs else []
    return seqs, places
