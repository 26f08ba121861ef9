"""ClientView: the connections that one watcher sees, picked from all of this node's.

Picking walks all of them, a few at a time so that no message waits for it, and at most once a second; what the picked
ones show is taken anew whenever somebody asks.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kama.monitor_filter import parse_filter
from kama.monitor_protocol import Client, ClientOrder, ClientQuery
from kama.server.registry import ClientRegistry
from kama.server.ws_gateway import UserConn

_CHUNK = 500
_PERIOD = 1.0

# `idle` and `since` go by how long ago: descending, the longest comes first.
_KEYS: Mapping[ClientOrder, Callable[[Client], Any]] = {
    "queue": lambda client: client.depth,
    "high": lambda client: client.high,
    "in": lambda client: client.in_rate,
    "out": lambda client: client.out_rate,
    "dropped": lambda client: client.dropped,
    "idle": lambda client: -client.last_ms,
    "since": lambda client: -client.since_ms,
    "user": lambda client: client.user_id,
    "device": lambda client: client.device,
}

Pick = tuple[Any, str, UserConn]


class ClientView:
    """`rows` are those picked last, `matched` how many pass the filter. Raises BadParameter for a wrong filter."""

    def __init__(
        self,
        registry: ClientRegistry,
        node: str,
        query: ClientQuery,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._node = node
        self._query = query
        self._passes = parse_filter(query.filter)
        self._clock = clock
        self._picked: Sequence[UserConn] = ()
        self._walked_at: float | None = None
        self._counts: dict[str, tuple[int, int]] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self.matched = 0

    async def rows(self) -> list[Client]:
        """The picked connections as they are now, in their order."""
        if self._walked_at is None or self._clock() - self._walked_at >= _PERIOD:
            await self._walk()
        return [self._client(conn) for conn in self._picked if conn.closing is None]

    async def _walk(self) -> None:
        now = self._clock()
        seconds = None if self._walked_at is None else max(now - self._walked_at, 0.001)
        self._walked_at = now
        before, self._counts = self._counts, {}
        first = self._query.offset + self._query.limit
        best: list[Pick] = []
        rates: dict[str, tuple[float, float]] = {}
        matched = 0
        conns = list(self._registry)
        for start in range(0, len(conns), _CHUNK):
            passed: list[Pick] = []
            for conn in conns[start : start + _CHUNK]:
                if conn.closing is not None:
                    continue
                rates[conn.id] = self._rate(conn, before.get(conn.id), seconds)
                if (pick := self._pick(conn, rates[conn.id])) is not None:
                    passed.append(pick)
            matched += len(passed)
            best = self._best(first, best + passed)
            await asyncio.sleep(0)
        self._rates = rates
        self.matched = matched
        self._picked = [conn for _, _, conn in best[self._query.offset :]]

    def _rate(self, conn: UserConn, before: tuple[int, int] | None, seconds: float | None) -> tuple[float, float]:
        counts = self._counts[conn.id] = (conn.counters.received, conn.counters.written)
        if before is None or seconds is None:
            return (0.0, 0.0)
        return (round((counts[0] - before[0]) / seconds, 1), round((counts[1] - before[1]) / seconds, 1))

    def _pick(self, conn: UserConn, rates: tuple[float, float]) -> Pick | None:
        client = build_client(conn, self._node, rates)
        return (_KEYS[self._query.sort](client), conn.id, conn) if self._passes(client) else None

    def _best(self, count: int, picks: Sequence[Pick]) -> list[Pick]:
        choose = heapq.nlargest if self._query.descending else heapq.nsmallest
        return choose(count, picks, key=lambda pick: pick[:2])

    def _client(self, conn: UserConn) -> Client:
        return build_client(conn, self._node, self._rates.get(conn.id, (0.0, 0.0)))


def build_client(conn: UserConn, node: str, rates: tuple[float, float] = (0.0, 0.0)) -> Client:
    counters = conn.counters
    return Client(
        id=conn.id,
        user_id=conn.user_id,
        node=node,
        device=conn.device,
        address=conn.address,
        post_only=conn.post_only,
        since_ms=int(conn.since * 1000),
        last_ms=int((conn.last or conn.since) * 1000),
        expires_ms=unix_ms(conn.identity.expires_at),
        depth=conn.depth,
        high=conn.queue.high_water,
        capacity=conn.limits.messages,
        queued_bytes=conn.queue.bytes,
        received=counters.received,
        written=counters.written,
        in_rate=rates[0],
        out_rate=rates[1],
        dropped=counters.dropped,
        refused=counters.refused,
        error=counters.error,
    )


def unix_ms(seconds: float) -> int:
    """A token may name an end that no clock reaches: as much as JSON's readers take."""
    return int(min(seconds * 1000, 2**53 - 1))
