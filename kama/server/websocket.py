"""What a connection is to those who use it: a Socket, which calls whoever owns it, and never waits.

uvicorn does the handshake (`transport.upgrade`), `ServerSocket` the rest.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from starlette.websockets import WebSocket

SOCKET_KEY = "kama.socket"


def retry_reason() -> str:
    """The reason of a 1001: when to come back. Spread out, so that not everybody comes at once."""
    return f'{{"retry_after_ms":{random.randint(100, 3000)}}}'


class SocketOwner(Protocol):
    """Whom a Socket calls. None of these may raise."""

    @property
    def leaves_with_its_task(self) -> bool:
        """Whether it is of no use once what the socket was handed over to has returned."""
        ...

    def on_frame(self, data: bytes) -> None:
        """The payload of a whole message; not while the socket is held."""
        ...

    def on_writable(self) -> None:
        """The peer takes data again, or is gone."""
        ...

    def on_end(self) -> None:
        """Once, after the last message: `ended` says why."""
        ...


class Socket(Protocol):
    """One accepted WebSocket. `can_write` is false while the peer does not take what was written."""

    @property
    def can_write(self) -> bool: ...

    @property
    def unsent(self) -> int | None:
        """Bytes that were written and that this process still holds; None once the connection is ending."""
        ...

    @property
    def ended(self) -> tuple[int, str] | None:
        """The close code and reason of whoever closed first; 1006 for a connection that was lost."""
        ...

    def listen(self, owner: SocketOwner) -> None:
        """Call this owner from now on, at once with what has come already. Before, the socket is held."""
        ...

    def hold(self) -> None:
        """Call nobody with messages: they wait, and after a few of them the peer does."""
        ...

    def release(self) -> None:
        """Go on, at once with what has waited."""
        ...

    def write_frames(self, payloads: Sequence[bytes]) -> int | None:
        """Each as a text frame. Never waits. Gives `unsent` as it is then: with None, nothing was written."""
        ...

    def write_made(self, frames: bytes) -> int | None:
        """The same for frames that are made already, see `ws_frame`."""
        ...

    def close_now(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; never waits, and twice is harmless."""
        ...

    def hand_over(self, run: Callable[[], Awaitable[None]]) -> None:
        """What is to run once the handler of the upgrade has returned. If nobody listens when it has, the connection
        ends.

        A connection lives long: with its handler on the stack, Starlette's part of it would stay in memory.
        """
        ...


def socket_of(websocket: WebSocket) -> Socket:
    """The transport under an accepted Starlette WebSocket."""
    socket: Socket = websocket.scope["extensions"][SOCKET_KEY]
    return socket
