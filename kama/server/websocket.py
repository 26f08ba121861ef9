"""The WebSocket transport: uvicorn's handshake, and after it the socket handed to UserConn.

Routing, authentication and refusals run through Starlette as everywhere. What differs from uvicorn's own class:

* frames come and go as bytes, without ASGI messages, many per system call, and whoever writes can see whether
  the peer takes them (`can_write`);
* a close never waits for the peer: the close frame goes out, and a peer that neither answers nor reads is cut
  off after `LINGER` seconds, with whatever is still in its buffer;
* after an answer to a broken or too large frame the rest of it is read and dropped: closing on unread data
  would reset the connection, and the peer would never learn why;
* a peer that is silent past the pong time-out leaves with 4010; text that is not UTF-8 with 1007 (RFC 6455,
  section 8.1), without a traceback in the log;
* reading pauses after READ_AHEAD frames and not after each, so that pings are answered while a sender waits;
* pings of a peer that does not read go unanswered: the answers would gather here without bound.

`ServerSocket` holds all of that. How frames are read and written is what the transports differ in: `SansIOSocket`
has `websockets` do it and needs nothing that is compiled, `PicowsSocket` is the faster one.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from kama.errors import CloseCode

LINGER = 5.0
READ_AHEAD = 16
REASON_MAX = 123
_QUIET = 0.2
SOCKET_KEY = "kama.socket"


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

    async def receive_frame(self) -> bytes | None:
        """The payload of the next data frame; None once the connection has ended. For one reader."""
        ...

    def write_frames(self, frames: Sequence[bytes]) -> bool:
        """Never waits. False when the connection is ending, and nothing was written."""
        ...

    async def drain(self) -> None:
        """Until the peer takes data again, or is gone."""
        ...

    def close_now(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; never waits, and twice is harmless."""
        ...

    def hand_over(self, run: Callable[[], Awaitable[None]]) -> None:
        """What is to run once the handler of the upgrade has returned. When it has, the connection ends.

        A connection lives long: with its handler on the stack, Starlette's part of it would stay in memory, and be
        walked through at every frame.
        """
        ...


def socket_of(websocket: WebSocket) -> Socket:
    """The transport under an accepted Starlette WebSocket."""
    socket: Socket = websocket.scope["extensions"][SOCKET_KEY]
    return socket


class ServerSocket(WebSocketsSansIOProtocol):
    """A Socket, but for how frames are read and written: that is for the classes made of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ended: tuple[int, str] | None = None
        self._inbox: deque[bytes] = deque()
        self._inbox_closed = False
        self._reader: asyncio.Future[None] | None = None
        self._deaf = False
        self._heard = False
        self._run: Callable[[], Awaitable[None]] | None = None
        self.app = self._serve

    @abstractmethod
    def write_frames(self, frames: Sequence[bytes]) -> bool: ...

    @abstractmethod
    def _read(self, data: bytes) -> None:
        """Bytes from the peer. Gives data to `_take`, a close frame to `_on_close`, what is no frame to `_refuse`."""

    @abstractmethod
    def _write_ping(self) -> None: ...

    @abstractmethod
    def _write_close(self, code: int, reason: bytes) -> None: ...

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[SOCKET_KEY] = self

    def hand_over(self, run: Callable[[], Awaitable[None]]) -> None:
        self._run = run

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        del self.app  # this method: an object that holds itself waits for the collector
        await self.config.loaded_app(scope, receive, send)
        scope.clear()
        run, self._run = self._run, None
        if run is not None:
            await run()

    # --- reading

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if not self._deaf:
            self._read(data)

    def _take(self, data: bytes, *, is_text: bool) -> None:
        """A whole message."""
        if self.close_sent:
            return
        if is_text and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self.close_now(CloseCode.INVALID_DATA, "expected UTF-8 in a text frame")
                return
        self._inbox.append(data)
        self._wake_reader()
        if not self.read_paused and len(self._inbox) >= READ_AHEAD:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive_frame(self) -> bytes | None:
        while not self._inbox:
            if self._inbox_closed:
                return None
            self._reader = self.loop.create_future()
            await self._reader
        data = self._inbox.popleft()
        if self.read_paused and len(self._inbox) <= READ_AHEAD // 2:
            self._resume_reading()
        return data

    def _wake_reader(self) -> None:
        if self._reader is not None:
            if not self._reader.done():
                self._reader.set_result(None)
            self._reader = None

    def _close_inbox(self) -> None:
        self._inbox_closed = True
        self._wake_reader()

    def _resume_reading(self) -> None:
        if self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()
        self.read_paused = False

    # --- writing

    @property
    def can_write(self) -> bool:
        return self.writable.is_set()

    @property
    def unsent(self) -> int | None:
        # A transport that was cut off has an empty buffer too: what was in it has gone nowhere.
        if self.disconnected or self.transport.is_closing():
            return None
        return self.transport.get_write_buffer_size()

    async def drain(self) -> None:
        await self.writable.wait()

    @property
    def _is_open(self) -> bool:
        return self.handshake_complete and not (self.close_sent or self.disconnected or self.transport.is_closing())

    # --- ending

    def close_now(self, code: int, reason: str = "") -> None:
        if self._is_open:
            # A close frame has 123 bytes for the reason (RFC 6455, section 5.5).
            self._write_close(code, reason.encode()[:REASON_MAX].decode(errors="ignore").encode())
            self._end(code, reason)

    def _refuse(self, code: int, reason: str) -> None:
        """The peer sent what is no frame, or too large a one, and was told so by a close frame."""
        self._deaf = True
        self._end(code, reason)
        self._close_when_quiet()

    def _close_when_quiet(self) -> None:
        """The close frame of the peer goes unread here: once nothing comes any more, it waits for the end."""
        if self.transport.is_closing():
            return
        if self._heard:
            self._heard = False
            self.loop.call_later(_QUIET, self._close_when_quiet)
        else:
            self.transport.close()

    def _end(self, code: int, reason: str) -> None:
        """Our close frame is written: tell the reader, listen for the peer's, and cut it off after LINGER."""
        self.ended = self.ended or (code, reason)
        self.stop_keepalive()
        self.close_sent = True
        self._close_inbox()
        self._resume_reading()
        self._cut_off_later()

    def _on_close(self, code: int, reason: str, answer: bytes) -> None:
        """The peer's close frame: the answer to ours, or to be answered."""
        self.ended = self.ended or (code, reason)
        self.stop_keepalive()
        self._close_inbox()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
        self._cut_off_later()

    def _cut_off_later(self) -> None:
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(LINGER, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or (CloseCode.LOST, "connection lost")
        self._close_inbox()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """uvicorn is going down: the node has closed its connections by now, and LINGER bounds the rest."""
        if self.handshake_complete and not self.disconnected:
            self.close_now(CloseCode.GOING_AWAY)
        else:
            super().shutdown()

    # --- keeping alive: whatever is heard after a ping answers it

    def send_keepalive_ping(self) -> None:
        self.ping_timer = None
        if self._is_open:
            self._heard = False
            self._write_ping()
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0, self.keepalive_timeout)

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        if self._heard or self.read_paused:
            left = (self.ping_interval or 0) - (self.ping_timeout or 0)
            self.ping_timer = self.loop.call_later(max(0, left), self.send_keepalive_ping)
        else:
            self.close_now(CloseCode.NO_PONG, "no pong")
