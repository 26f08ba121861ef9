"""LookUp: what is asked for each batch and each login, in one trip to a thread of its own.

Through SQLAlchemy it would take a transaction of several statements, each a trip of its own, which costs a lone
message more than all the rest of its way.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
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
_POSITIONS = """
SELECT cursor.conversation, sent_seq, last_seq FROM cursor JOIN conversation USING (conversation) WHERE user_id = ?
ORDER BY cursor.conversation
"""
_FEW = 32
# Seconds. Who is not quick pays with a wait of a hundred times as long, and has some credit: a look may also have taken
# long because the system ran another program meanwhile.
_QUICK = 0.001
_PAUSE = 100
_CREDIT = 5.0


class LookUp:
    """Reads what is committed. Raises sqlite3.Error."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._connection: OneHopConnection | None = None
        self._quick: QuickLook | None = None

    async def find(
        self, conversations: Collection[str], pairs: Collection[Pair]
    ) -> tuple[Mapping[str, int], Mapping[Pair, Stored]]:
        """The last seq of each conversation that has one, and where the message of each pair is that there is."""
        seqs, places = await self._ask(_find, list(conversations), list(pairs))
        return dict(seqs), {(send_id, key): Stored(*place) for send_id, key, *place in places}

    async def positions(self, user_id: str) -> list[tuple[str, int, int]]:
        """Conversation, the user's sent seq, and the conversation's last: of each that the user is in."""
        found: list[tuple[str, int, int]] = await self._ask(_positions, user_id)
        return found

    async def open(self) -> None:
        self._connection = await connect(self._database, timeout=10)
        self._quick = QuickLook(self._database)

    def positions_now(self, user_id: str) -> list[tuple[str, int, int]] | None:
        """The same without a trip to the thread; None when that may take too long."""
        return self._quick.positions(user_id) if self._quick is not None else None

    async def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        if self._connection is None:
            raise RuntimeError("the database is not open: await open() first")
        return await self._connection.in_thread(question, *arguments)

    async def close(self) -> None:
        # Before the other one: who closes a database last tidies it up, and takes its time.
        if self._quick is not None:
            self._quick.close()
            self._quick = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class QuickLook:
    """Asks on the loop: a trip to a thread and back takes five times as long as the answer, if the disk is awake.

    It may not hold up the loop. It waits for no lock, and gives up on a user with many conversations. When some looks
    took more than a millisecond, as reading pages that memory has not, it looks no more for a hundred times as long:
    however slow the disk, the loop waits for it a hundredth of its time.
    """

    def __init__(self, database: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._connection = sqlite3.connect(database, timeout=0, isolation_level=None)
        self._connection.execute("PRAGMA query_only = ON")
        self._clock = clock
        self._owed_until = 0.0

    def positions(self, user_id: str) -> list[tuple[str, int, int]] | None:
        began = self._clock()
        if began + _CREDIT < self._owed_until:
            return None
        try:
            found = self._connection.execute(f"{_POSITIONS} LIMIT {_FEW + 1}", (user_id,)).fetchall()
        except sqlite3.Error:  # whoever asks in the thread has more patience, and hears of it
            return None
        took = self._clock() - began
        if took > _QUICK:
            self._owed_until = max(began, self._owed_until) + took * _PAUSE
        return found if len(found) <= _FEW else None

    def close(self) -> None:
        self._connection.close()


def _find(connection: sqlite3.Connection, conversations: list[str], pairs: list[Pair]) -> tuple[list[Any], list[Any]]:
    seqs = connection.execute(_LAST_SEQS, (encode(conversations).decode(),)).fetchall() if conversations else []
    places = connection.execute(_PAIRS, (encode(pairs).decode(),)).fetchall() if pairs else []
    return seqs, places


def _positions(connection: sqlite3.Connection, user_id: str) -> list[Any]:
    return connection.execute(_POSITIONS, (user_id,)).fetchall()
