"""Unconfirmed: what was written to one connection, and has not left this process as far as is known.

The peer may never take what is still in the transport's buffer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from kama.server.message_back import MessageBack
from kama.server.websocket import Socket

_LOOK_AGAIN = 0.05


class Unconfirmed:
    """Lives while the transport holds something. `sent` is told of each message that is out, `done` once all are."""

    __slots__ = ("_bytes", "_done", "_items", "_look", "_sent", "_socket", "_user_id")

    def __init__(
        self, user_id: str, socket: Socket, sent: Callable[[MessageBack], None], done: Callable[[], None]
    ) -> None:
        self._user_id = user_id
        self._socket = socket
        self._sent = sent
        self._done = done
        self._items: deque[MessageBack | bytes] = deque()
        self._bytes = 0
        self._look: asyncio.TimerHandle | None = None

    def add(self, items: Sequence[MessageBack | bytes]) -> None:
        """These were written just now, in this order."""
        self._items.extend(items)
        self._bytes += sum(map(self._size, items))
        self._confirm()

    def _size(self, item: MessageBack | bytes) -> int:
        """What of it was written to this user."""
        if isinstance(item, bytes):
            return len(item)
        return len(item.frame) if item.is_shown_to(self._user_id) else 0

    def _confirm(self, look_again: float = 0.0) -> None:
        """A message is out when the buffer is no longer than what was written after it. Frame headers and pings are
        not counted in, which errs on the safe side."""
        unsent = self._socket.unsent
        while self._items and unsent is not None:
            item = self._items[0]
            behind_it = self._bytes - self._size(item)
            if unsent > behind_it:
                break
            self._items.popleft()
            self._bytes = behind_it
            if not isinstance(item, bytes):
                self._sent(item)
        if not self._items:
            if self._look is not None:
                self._look.cancel()
            self._done()
        elif self._look is None and unsent is not None:
            # uvloop sends at the end of the loop's turn; after that it takes as long as the peer takes.
            self._look = asyncio.get_running_loop().call_later(look_again, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._confirm(_LOOK_AGAIN)
