"""Nodes as the directory knows them, without processes behind them: announced, with a lease for each of their users.

What is written to Redis is written by the directory's own code, so it has no other form than a real node's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

from kama.server import leases, node_table
from kama.server.directory_redis import RedisDirectory
from kama.server.registry import ClientRegistry
from kama.server.ws_gateway import UserConn

# Writing a million leases takes longer than they live.
_LONG = 3600.0


@dataclass(slots=True, eq=False)
class Holder:
    """As much of a connection as its lease has in it."""

    user_id: str
    id: str
    address: str = ""
    since: float = field(default_factory=time.time)
    post_only: bool = False
    closing: tuple[int, str] | None = None


@contextmanager
def long_lives() -> Iterator[None]:
    """Leases and announcements that last as long as a measurement."""
    with patch.object(leases, "_TTL", _LONG), patch.object(node_table, "NODE_TTL", _LONG):
        yield


def user_ids(count: int) -> list[str]:
    return [f"U{number:011d}" for number in range(count)]


def of_node(users: list[str], number: int, nodes: int) -> list[str]:
    """The users that one of the nodes has."""
    return users[number::nodes]


@asynccontextmanager
async def announced(url: str, number: int, users: Iterable[str] = ()) -> AsyncIterator[RedisDirectory]:
    """One node's directory, with its announcement written. Its leases are written by `_renew`, as every 20 s."""
    registry = ClientRegistry(10_000_000, 8, "allow")
    for user in users:
        registry.add(cast(UserConn, Holder(user, f"{hash(user) & 0xFFFFFFFFFFFF:012x}")))
    directory = RedisDirectory(
        url,
        f"chat-{number}.example:8000",
        registry,
        address=f"chat-{number}.example:8000",
        per_user=8,
        multi_login="allow",
        resync=_nothing,
        sweep=_sweep_nothing,
        renumber=lambda _number: None,
    )
    try:
        await directory._beat()
        yield directory
    finally:
        await directory.close()


async def _nothing() -> None: ...


async def _sweep_nothing(nodes: Collection[str]) -> Any: ...
