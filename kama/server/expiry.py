"""Expiry: tells a connection that its token will end, and ends it when it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from kama.errors import CloseCode
from kama.protocol import ExpiringFrame, encode
from kama.server.ws_gateway import UserConn

_WARN_BEFORE = 60.0


class Expiry:
    __slots__ = ("_conn", "_timer")

    def __init__(self, conn: UserConn) -> None:
        self._conn = conn
        self._timer: asyncio.TimerHandle | None = None
        self.schedule()

    def schedule(self) -> None:
        """Anew, for the token that the connection has now."""
        self.cancel()
        left = self._left()
        self._at(left - min(_WARN_BEFORE, left / 2), self._warn)

    def _left(self) -> float:
        return self._conn.identity.expires_at - time.time()

    def _at(self, delay: float, call: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), call)

    def _warn(self) -> None:
        left = self._left()
        self._conn.offer_control(encode(ExpiringFrame(max(0, round(left)))))
        self._at(left, self._end)

    def _end(self) -> None:
        if self._left() > 0.001:  # the timer's clock and the wall's are not the same
            self._at(self._left(), self._end)
        else:
            self._conn.close(CloseCode.TOKEN_EXPIRED, "token expired")

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
