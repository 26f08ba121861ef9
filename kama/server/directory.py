"""Who is where: which nodes there are, and which of them hold a user's connections."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from kama.monitor_protocol import Node
from kama.server.ws_gateway import UserConn


class NodeInfo(Struct, kw_only=True, omit_defaults=True):
    """A node as it announces itself. `epoch` is new at each start, `beat_ms` the Unix time of the announcement.

    `node`: what those see who watch it.
    """

    name: str
    epoch: str
    id: int
    address: str
    version: str
    connections: int
    beat_ms: int
    node: Node | None = None


class Directory(Protocol):
    epoch: str  # new at each start of this node

    async def start(self, wanted_id: int | None) -> int:
        """Announce this node, and give its number for message ids: the wanted one, or a free one."""
        ...

    async def close(self) -> None:
        """Announce its end. Twice is harmless."""
        ...

    async def enter(self, conn: UserConn) -> Sequence[str]:
        """Make a connection known, before it is caught up. Gives the ids of those elsewhere that it replaces.

        Raises Forbidden or RateLimited when the user has enough connections on all nodes together.
        """
        ...

    def leave(self, conn: UserConn) -> None:
        """Never waits; harmless when it is not known."""
        ...

    async def nodes_of(self, users: Collection[str]) -> Mapping[str, Collection[str]]:
        """The other nodes that may hold a connection of each of the users; who is nowhere else is left out."""
        ...

    async def count(self, user_id: str, connection_ids: Collection[str] | None = None) -> int:
        """How many connections, or how many of those named, the user has elsewhere."""
        ...

    @property
    def others(self) -> Collection[str]:
        """The names of the other nodes."""
        ...

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        """All nodes as they last announced themselves."""
        ...

    @property
    def trouble(self) -> str:
        """Why other nodes cannot be heard now, in words; empty while they can."""
        ...


class LocalDirectory:
    """For a node that is alone: nobody is anywhere else, and asking costs nothing."""

    others: Collection[str] = ()
    nodes: Sequence[NodeInfo] = ()
    trouble = ""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)

    async def start(self, wanted_id: int | None) -> int:
        return 1 if wanted_id is None else wanted_id

    async def close(self) -> None:
        pass

    async def enter(self, conn: UserConn) -> Sequence[str]:
        return ()

    def leave(self, conn: UserConn) -> None:
        pass

    async def nodes_of(self, users: Collection[str]) -> Mapping[str, Collection[str]]:
        return {}

    async def count(self, user_id: str, connection_ids: Collection[str] | None = None) -> int:
        return 0
