"""The WebSocket transport: uvicorn's sans-I/O protocol class, with the socket handed to UserConn after the handshake.

Routing, authentication and refusals run through Starlette as everywhere. What differs from uvicorn's own class:

* frames come and go as bytes, without ASGI messages, many per system call, and whoever writes can see whether
  the peer takes them (`can_write`);
* a close never waits for the peer: the close frame goes out, and a peer that neither answers nor reads is cut
  off after `LINGER` seconds, with whatever is still in its buffer;
* after an answer to a broken or too large frame the rest of it is read and dropped: closing on unread data
  would reset the connection, and the peer would never learn why;
* a peer that is silent past the pong time-out leaves with 4010; text that is not UTF-8 with 1007 (RFC 6455,
  section 8.1), without a traceback in the log;
* reading pauses after READ_AHEAD frames and not after each, so that pings are answered while a sender waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import State

from kama.errors import CloseCode

LINGER = 5.0
READ_AHEAD = 16
_REASON_MAX = 123
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
        """The payload of the next data frame; None once the connection has ended."""
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


def socket_of(websocket: WebSocket) -> Socket:
    """The transport under an accepted Starlette WebSocket."""
    socket: Socket = websocket.scope["extensions"][SOCKET_KEY]
    return socket


class SansIOSocket(WebSocketsSansIOProtocol):
    """uvicorn's `websockets-sansio` as a Socket."""

    ended: tuple[int, str] | None = None
    _deaf = False
    _heard = False

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[SOCKET_KEY] = self

    # --- reading

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if not self._deaf:
            super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        if self.curr_msg_data_type == "text":
            try:
                bytes(data).decode()
            except UnicodeDecodeError:
                self.close_now(CloseCode.INVALID_DATA, "expected UTF-8 in a text frame")
                return
        self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        if not self.read_paused and self.queue.qsize() >= READ_AHEAD:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive_frame(self) -> bytes | None:
        message = await self.queue.get()
        if self.read_paused and self.queue.qsize() <= READ_AHEAD // 2:
            self._resume_reading()
        if message["type"] != "websocket.receive":
            return None
        data = message["bytes"]
        assert data is not None  # `send_receive_event_to_app` put it there
        return bytes(data)

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

    def write_frames(self, frames: Sequence[bytes]) -> bool:
        if self.close_sent or self.disconnected or self.conn.state is not State.OPEN:
            return False
        for frame in frames:
            self.conn.send_text(frame)
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    async def drain(self) -> None:
        await self.writable.wait()

    # --- ending

    def close_now(self, code: int, reason: str = "") -> None:
        if self.close_sent or self.disconnected or self.conn.state is not State.OPEN:
            return
        # A close frame has 123 bytes for the reason (RFC 6455, section 5.5).
        self.conn.send_close(code, reason.encode()[:_REASON_MAX].decode(errors="ignore"))
        self._end(code, reason)

    def handle_parser_exception(self) -> None:
        self._deaf = True
        close = self.conn.close_sent
        self._end(close.code if close else CloseCode.INVALID_DATA, close.reason if close else "")
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
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
        self._resume_reading()
        self.close_timer = self.loop.call_later(LINGER, self.transport.abort)

    def handle_close(self, event: Frame) -> None:
        received = self.conn.close_rcvd
        if self.ended is None and received is not None:
            self.ended = (received.code, received.reason)
        super().handle_close(event)
        if self.close_timer is None:
            self.close_timer = self.loop.call_later(LINGER, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or (CloseCode.LOST, "connection lost")
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """uvicorn is going down: the node has closed its connections by now, and LINGER bounds the rest."""
        if self.handshake_complete and not self.disconnected:
            self.close_now(CloseCode.GOING_AWAY)
        else:
            super().shutdown()

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        self.pending_ping_payload = None
        if self._heard or self.read_paused:
            self.schedule_ping()
        else:
            self.close_now(CloseCode.NO_PONG, "no pong")

    def send_keepalive_ping(self) -> None:
        self._heard = False
        super().send_keepalive_ping()
