"""ClientRegistry: who is connected to this node. One event loop owns it, so a plain dict needs no lock.

A user has any number of connections; an end removes exactly the connection that ended.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kama.errors import Busy, CloseCode, Forbidden, RateLimited
from kama.server.events import Journal
from kama.server.ws_gateway import UserConn

MultiLogin = Literal["allow", "replace", "reject"]
_CLOSED_RING = 1000


@dataclass(frozen=True, slots=True)
class ClosedConn:
    """A connection that ended, and why. Times are Unix seconds."""

    id: str
    user_id: str
    device: str
    address: str
    since: float
    until: float
    code: int
    reason: str


class ClientRegistry:
    def __init__(
        self, connections: int, per_user: int, multi_login: MultiLogin, journal: Journal | None = None
    ) -> None:
        self._max = connections
        self._per_user = per_user
        self._multi_login = multi_login
        self._journal = journal or Journal()
        self._users: dict[str, tuple[UserConn, ...]] = {}
        self._count = 0
        self.pending = 0  # accepted, and their token is still to come
        self.closed: deque[ClosedConn] = deque(maxlen=_CLOSED_RING)
        self.closed_by_code: Counter[int] = Counter()
        self.ended = 0

    def __len__(self) -> int:
        return self._count

    @property
    def users(self) -> int:
        return len(self._users)

    def __iter__(self) -> Iterator[UserConn]:
        for connections in tuple(self._users.values()):
            yield from connections

    def get(self, user_id: str) -> Sequence[UserConn]:
        """The user's open connections; a snapshot, safe to iterate whatever happens meanwhile."""
        return self._users.get(user_id, ())

    def check(self, user_id: str, *, post_only: bool = False) -> None:
        """Whether one more connection of this user may come. Raises Busy, Forbidden or RateLimited."""
        mine = self.get(user_id)
        replaces = self._multi_login == "replace" and not post_only
        kept = sum(conn.post_only for conn in mine) if replaces else len(mine)
        count = self._count + self.pending - (len(mine) - kept)
        if count >= self._max:
            raise Busy(f"this node is full: it has {count} of {self._max} connections (limits.connections)")
        if self._multi_login == "reject" and not post_only and any(not conn.post_only for conn in mine):
            raise Forbidden(f"{user_id} is logged in already (limits.multi_login = reject)")
        if kept >= self._per_user:
            raise RateLimited(
                f"{user_id} has {kept} of {self._per_user} connections (limits.connections_per_user)",
                retry_after=5,
            )

    def add(self, conn: UserConn) -> None:
        """Raises what `check` raises. Under `replace` the user's other connections leave with 4001."""
        self.check(conn.user_id, post_only=conn.post_only)
        if self._multi_login == "replace" and not conn.post_only:
            for other in self.get(conn.user_id):
                if not other.post_only:
                    other.close(CloseCode.REPLACED, "replaced by another login")
        self._users[conn.user_id] = (*self.get(conn.user_id), conn)
        self._count += 1
        self._journal.opened(conn.user_id, conn.id, conn.address)

    def discard(self, conn: UserConn) -> None:
        """Remove this connection and no other; harmless when it is not there."""
        mine = self._users.get(conn.user_id, ())
        if conn not in mine:
            return
        rest = tuple(other for other in mine if other is not conn)
        if rest:
            self._users[conn.user_id] = rest
        else:
            del self._users[conn.user_id]
        self._count -= 1
        code, reason = conn.closing or (CloseCode.NORMAL, "")
        self.closed_by_code[code] += 1
        self.ended += 1
        self._journal.closed(conn.user_id, conn.id, code, reason)
        self.closed.append(
            ClosedConn(conn.id, conn.user_id, conn.device, conn.address, conn.since, time.time(), int(code), reason)
        )
