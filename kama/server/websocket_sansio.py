"""The Socket on `websockets`, which is always there: uvicorn's `websockets-sansio`, taken over after the handshake."""

from __future__ import annotations

from collections.abc import Sequence

from websockets.frames import Frame
from websockets.protocol import State

from kama.errors import CloseCode
from kama.server.websocket import ServerSocket


class SansIOSocket(ServerSocket):
    """Frames read and written by `websockets`."""

    def _read(self, data: bytes) -> None:
        self.conn.receive_data(data)
        self.handle_events()
        if self.conn.parser_exc is not None:
            self.transport.write(b"".join(self.conn.data_to_send()))
            close = self.conn.close_sent
            self._refuse(close.code if close else CloseCode.INVALID_DATA, close.reason if close else "")

    def handle_cont(self, event: Frame) -> None:
        if event.data:  # fragments without content have no end and no size limit
            self.frames.append(bytes(event.data))
        if event.fin:
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        data = b"".join(self.frames)
        self.frames = []
        self._take(data, is_text=self.curr_msg_data_type == "text")

    def handle_ping(self) -> None:
        answer = b"".join(self.conn.data_to_send())
        if self.can_write and not self.close_sent:
            self.transport.write(answer)

    def handle_pong(self, event: Frame) -> None:
        """It was heard, which is enough."""

    def handle_close(self, event: Frame) -> None:
        received = self.conn.close_rcvd
        assert received is not None  # this frame
        self._on_close(received.code, received.reason, b"".join(self.conn.data_to_send()))

    @property
    def _is_open(self) -> bool:
        return super()._is_open and self.conn.state is State.OPEN

    def write_frames(self, frames: Sequence[bytes]) -> bool:
        if not self._is_open:
            return False
        for frame in frames:
            self.conn.send_text(frame)
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def _write_ping(self) -> None:
        self.conn.send_ping(b"")
        self.transport.write(b"".join(self.conn.data_to_send()))

    def _write_close(self, code: int, reason: bytes) -> None:
        self.conn.send_close(code, reason.decode())
        self.transport.write(b"".join(self.conn.data_to_send()))
