"""picows' C parser by itself: bytes go in, frames come out, and it writes nowhere.

picows brings a server of its own, without Starlette's routes, refusals and limits. Of it we use the parser alone,
`WSProtocol`, which has no public constructor: each minor version is tried before it is let in. It is taken through
a handshake of its own, once: a parser serves one connection after the other.
"""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from picows import WSAutoPingStrategy, WSFrame, WSListener, WSProtocolError, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]

_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: kama\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_BUFFER = 2048
_KEPT_BUFFER = 1 << 16
_KEPT = 16


class FrameTaker(Protocol):
    def take_frame(self, frame: WSFrame) -> None:
        """Raises WSProtocolError with the close code and what was wrong. The frame is gone when this returns."""
        ...


class FrameParsers:
    """The parsers of one node, for frames of at most `max_size` bytes.

    A connection holds one only while it has a piece of a frame: an idle one costs no buffers.
    """

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._idle: list[FrameParser] = []

    def borrow(self) -> FrameParser:
        return self._idle.pop() if self._idle else FrameParser(self.max_size)

    def give_back(self, parser: FrameParser) -> None:
        if len(self._idle) < _KEPT and parser.room <= _KEPT_BUFFER:
            self._idle.append(parser)


class FrameParser(WSListener):
    """One picows parser. `between_frames`: nothing of a frame is left in it."""

    def __init__(self, max_size: int) -> None:
        self.between_frames = True
        self._taker: FrameTaker | None = None
        self._failed = False
        self._parser = WSProtocol(
            *(None, None, False),  # no host, no path, not a client
            lambda _request: self,
            _Silent(),
            *(False, None),  # stays connected when a listener fails; no time-out of the handshake
            *(False, 0, 0, WSAutoPingStrategy.PING_WHEN_IDLE, False),  # no pings and pongs of its own
            *(max_size, None, _BUFFER),
        )
        self._parser.connection_made(_Nowhere())
        self.feed(None, _HANDSHAKE)

    @property
    def room(self) -> int:
        """The bytes it could take at once; between frames, the size of its buffer."""
        return len(self._parser.get_buffer(-1))

    @property
    def refusal(self) -> tuple[int, str] | None:
        """The close code and reason for what is no frame. After it, as after a close frame, the parser is spent."""
        handshake = self._parser.transport.close_handshake
        return (int(handshake.sent.code), handshake.sent.reason) if handshake and handshake.sent else None

    def feed(self, taker: FrameTaker | None, data: bytes) -> None:
        """Gives each frame that `data` completes to `taker`."""
        self._taker = taker
        parser = self._parser
        while data:
            self.between_frames = False
            buffer = parser.get_buffer(-1)
            size, room = len(data), len(buffer)
            if size <= room:
                buffer[:size] = data
                parser.buffer_updated(size)
                break
            buffer[:] = data[:room]
            parser.buffer_updated(room)
            data = data[room:]
        self._taker = None

    def on_ws_connected(self, _transport: WSTransport) -> None:
        self.between_frames = True

    def on_ws_frame(self, _transport: WSTransport, frame: WSFrame) -> None:
        self.between_frames = frame.tail_size == 0
        if self._taker is None or self._failed:
            return
        try:
            self._taker.take_frame(frame)
        except WSProtocolError:
            self._failed = True
            raise


class _Nowhere:
    """What a parser takes for its connection. Data seem to wait in it: else picows would write to the file itself."""

    def get_extra_info(self, name: str) -> _Nowhere | None:
        return self if name == "socket" else None

    def fileno(self) -> int:
        return -1

    def getsockopt(self, *_: Any) -> int:
        return 0

    def get_write_buffer_size(self) -> int:
        return 1

    def setsockopt(self, *_: Any) -> None: ...

    def write(self, _data: bytes) -> None: ...

    def close(self) -> None: ...


class _Silent:
    """What a parser logs: nothing, for whatever a client sends is no fault of the node. A fault of ours goes on up."""

    def isEnabledFor(self, _level: int) -> bool:
        return False

    def info(self, *_: Any) -> None: ...

    def debug(self, *_: Any) -> None: ...

    def error(self, *_: Any) -> None: ...

    def exception(self, *_: Any) -> NoReturn:
        raise
