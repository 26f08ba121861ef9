"""The Socket on picows: its C parser reads the frames, and what is written goes to the system in one piece."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from picows import WSCloseCode, WSFrame, WSMsgType, WSProtocolError
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from kama.server.frame_parser import FrameParser, FrameParsers
from kama.server.websocket import REASON_MAX, ServerSocket

_CONTINUATION, _TEXT, _BINARY = WSMsgType.CONTINUATION, WSMsgType.TEXT, WSMsgType.BINARY
_PING, _CLOSE = WSMsgType.PING, WSMsgType.CLOSE
_OP_TEXT, _OP_CLOSE, _OP_PING, _OP_PONG = 0x81, 0x88, 0x89, 0x8A


def _frame(first: int, payload: bytes) -> bytes:
    """A whole, unmasked frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


class PicowsSocket(ServerSocket):
    """Frames read by picows. They are written here: a server's header is its length."""

    def __init__(self, parsers: FrameParsers, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parsers = parsers
        self._parser: FrameParser | None = None
        self._fd = -1
        self._early = b""
        self._message: bytearray | None = None
        self._is_text = False

    # --- reading

    def _read(self, data: bytes) -> None:
        if self.handshake_complete:
            self._parse(data)
        elif self.handshake_initiated:
            self._early += data
            self.read_paused = True
            self.transport.pause_reading()
        else:
            self.conn.receive_data(data)
            self.handle_events()

    def start_keepalive(self) -> None:
        """uvicorn calls this when the upgrade is answered: from here on frames come."""
        super().start_keepalive()
        del self.conn, self.request, self.response
        if self.scheme == "ws":
            self._fd = self.transport.get_extra_info("socket").fileno()
        early, self._early = self._early, b""
        self._resume_reading()
        self._parse(early)

    def _parse(self, data: bytes) -> None:
        parser = self._parser or self._parsers.borrow()
        self._parser = None
        parser.feed(self, data)
        if self._deaf:
            return
        if parser.refusal is not None:
            code, reason = parser.refusal
            if not self.close_sent:
                self._write_close(code, reason.encode()[:REASON_MAX])
            self._refuse(code, reason)
        elif parser.between_frames:
            self._parsers.give_back(parser)
        else:
            self._parser = parser

    def take_frame(self, frame: WSFrame) -> None:
        if self._deaf:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
        kind = frame.msg_type
        if kind in (_TEXT, _BINARY):
            self._begin_message(frame, kind is _TEXT)
        elif kind is _CONTINUATION:
            self._continue_message(frame)
        elif kind is _PING:
            if self._is_open and self.can_write:
                self._write(_frame(_OP_PONG, frame.get_payload_as_bytes()))
        elif kind is _CLOSE:
            self._take_close(frame.get_payload_as_bytes())

    def _begin_message(self, frame: WSFrame, is_text: bool) -> None:
        if self._message is not None:
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "expected a continuation frame, got a new message")
        if frame.fin:
            self._take(frame.get_payload_as_bytes(), is_text=is_text)
        else:
            self._message = bytearray(frame.get_payload_as_memoryview())
            self._is_text = is_text

    def _continue_message(self, frame: WSFrame) -> None:
        if self._message is None:
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, "expected a new message, got a continuation frame")
        size = len(self._message) + frame.payload_size
        if size > self._parsers.max_size:
            raise WSProtocolError(
                WSCloseCode.MESSAGE_TOO_BIG, f"expected at most {self._parsers.max_size} bytes of a message, got {size}"
            )
        self._message += frame.get_payload_as_memoryview()
        if frame.fin:
            data = bytes(self._message)
            self._message = None
            self._take(data, is_text=self._is_text)

    def _take_close(self, payload: bytes) -> None:
        try:
            close = Close.parse(payload)
        except ProtocolError as error:  # picows lets codes pass that are never sent, such as 1006
            raise WSProtocolError(WSCloseCode.PROTOCOL_ERROR, str(error)) from None
        self._deaf = True
        self._on_close(close.code, close.reason, b"" if self.close_sent else _frame(_OP_CLOSE, payload))

    # --- writing

    def write_frames(self, frames: Sequence[bytes]) -> bool:
        if not self._is_open:
            return False
        self._write(b"".join([_frame(_OP_TEXT, frame) for frame in frames]))
        return True

    def _write(self, data: bytes) -> None:
        """To the system at once, where nothing is waiting and it may be seen: uvloop's transport would do it at the end
        of the loop's turn, and until then nobody could tell that it is out."""
        if self._fd >= 0 and self._is_open and not self.transport.get_write_buffer_size():
            # Its buffer may be full, or the connection lost: the transport finds out.
            with contextlib.suppress(OSError):
                data = data[os.write(self._fd, data) :]
        if data:
            self.transport.write(data)

    def _write_ping(self) -> None:
        self._write(_frame(_OP_PING, b""))

    def _write_close(self, code: int, reason: bytes) -> None:
        self._write(_frame(_OP_CLOSE, code.to_bytes(2, "big") + reason))


def picows_sockets(max_size: int) -> Callable[..., PicowsSocket]:
    """The protocol class of one node, as uvicorn takes it. Frames and messages have at most `max_size` bytes."""
    return functools.partial(PicowsSocket, FrameParsers(max_size))
