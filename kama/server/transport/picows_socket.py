"""The Socket on picows: its C parser reads the frames."""

from __future__ import annotations

import functools
from collections.abc import Callable

from picows import WSCloseCode, WSFrame, WSMsgType, WSProtocolError
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from kama.server.transport.frame_parser import FrameParser, FrameParsers
from kama.server.transport.server_socket import ServerSocket
from kama.server.transport.upgrade import Upgrade

try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets without its own compiled part
    from websockets.utils import apply_mask


def lone_text(data: bytes, max_size: int) -> bytes | None:
    """The payload, where the data are nothing but one whole text frame of 126 to 65,535 bytes: in a third of the time
    that a parser takes, and what a chat message nearly always is."""
    if data[0] != 0x81 or len(data) < 134 or data[1] != 0xFE:
        return None
    size = data[2] << 8 | data[3]
    if len(data) != size + 8 or size > max_size:
        return None
    return apply_mask(data[8:], data[4:8])


_CONTINUATION, _TEXT, _BINARY = WSMsgType.CONTINUATION, WSMsgType.TEXT, WSMsgType.BINARY
_PING, _CLOSE = WSMsgType.PING, WSMsgType.CLOSE


class PicowsSocket(ServerSocket):
    """Frames read by one of the node's parsers, which it keeps only while it has a piece of a frame."""

    __slots__ = ("_parser", "_parsers")

    def __init__(self, parsers: FrameParsers, upgrade: Upgrade) -> None:
        super().__init__(upgrade)
        self._parsers = parsers
        self._parser: FrameParser | None = None

    def data_received(self, data: bytes) -> None:
        if self._parser is None and self._message is None and not self._deaf:
            payload = lone_text(data, self._parsers.max_size)
            if payload is not None:
                self._heard = True
                if self._owner is not None and payload.isascii() and not (self._held or self.close_sent):
                    self._owner.on_frame(payload)
                else:
                    self._take(payload, is_text=True)
                return
        super().data_received(data)

    def _read(self, data: bytes) -> None:
        parser = self._parser or self._parsers.borrow()
        self._parser = None
        parser.feed(self, data)
        if self._deaf:
            return
        if parser.refusal is not None:
            self._refuse(*parser.refusal)
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
            self._answer_ping(frame.get_payload_as_bytes())
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
        self._on_close(close.code, close.reason, payload)


def picows_sockets(max_size: int) -> Callable[[Upgrade], PicowsSocket]:
    """The sockets of one node. Frames and messages have at most `max_size` bytes."""
    return functools.partial(PicowsSocket, FrameParsers(max_size))
