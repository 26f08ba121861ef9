"""Leases in Redis: which node holds which connection of a user, until when.

kama:where:<user>     one member a connection, <node>|<epoch>|<connection>|<since>|<posts only>, scored by its end
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from kama.server.ws_gateway import UserConn

_TTL = 60.0
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Lease:
    """`epoch`: of which life of the node. `since_ms` in Unix milliseconds."""

    node: str
    epoch: str
    conn_id: str
    since_ms: int
    post_only: bool

    @classmethod
    def read(cls, member: bytes) -> Lease | None:
        """None when it is none of ours."""
        try:
            node, epoch, conn_id, since, post_only = member.decode().rsplit("|", 4)
            return cls(node, epoch, conn_id, int(since), post_only == "1")
        except ValueError:
            return None

    def write(self) -> str:
        return f"{self.node}|{self.epoch}|{self.conn_id}|{self.since_ms}|{int(self.post_only)}"


class Leases:
    """Those of this node are written, renewed and removed here; those of all are read. Raises what Redis raises."""

    def __init__(self, redis: Redis, node: str, epoch: str) -> None:
        self._redis = redis
        self._node = node
        self._epoch = epoch

    def of(self, conn: UserConn) -> Lease:
        return Lease(self._node, self._epoch, conn.id, int(conn.since * 1000), conn.post_only)

    async def enter(self, conn: UserConn) -> Sequence[Lease]:
        """Write the connection's lease; gives all leases of its user."""
        key = _key(conn.user_id)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zremrangebyscore(key, "-inf", _now_ms())
            self._write(pipe, conn)
            pipe.zrange(key, 0, -1)
            members = (await pipe.execute())[-1]
        return _read(members)

    async def renew(self, conns: Sequence[UserConn]) -> None:
        for start in range(0, len(conns), _CHUNK):
            async with self._redis.pipeline(transaction=False) as pipe:
                for conn in conns[start : start + _CHUNK]:
                    self._write(pipe, conn)
                await pipe.execute()

    def _write(self, pipe: Any, conn: UserConn) -> None:
        key, ttl = _key(conn.user_id), int(_TTL * 1000)
        pipe.zadd(key, {self.of(conn).write(): _now_ms() + ttl})
        pipe.pexpire(key, ttl)

    async def remove(self, leaving: Sequence[tuple[str, Lease]]) -> None:
        """Leases of this node, each with its user."""
        for start in range(0, len(leaving), _CHUNK):
            async with self._redis.pipeline(transaction=False) as pipe:
                for user_id, lease in leaving[start : start + _CHUNK]:
                    pipe.zrem(_key(user_id), lease.write())
                await pipe.execute()

    async def find(self, users: Collection[str]) -> dict[str, Sequence[Lease]]:
        """The leases of each user, as they stand in Redis: of nodes that are gone as well."""
        found: dict[str, Sequence[Lease]] = {}
        now, wanted = _now_ms(), list(users)
        for start in range(0, len(wanted), _CHUNK):
            chunk = wanted[start : start + _CHUNK]
            async with self._redis.pipeline(transaction=False) as pipe:
                for user in chunk:
                    pipe.zrangebyscore(_key(user), now, "+inf")
                held = await pipe.execute()
            found |= zip(chunk, map(_read, held), strict=True)
        return found


def _read(members: Iterable[bytes]) -> list[Lease]:
    return list(filter(None, map(Lease.read, members)))


def _key(user_id: str) -> str:
    return f"kama:where:{user_id}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
