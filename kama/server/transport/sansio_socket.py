"""The Socket on `websockets`, which is always there: its sans-I/O protocol reads the frames."""

from __future__ import annotations

import logging

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from kama.errors import CloseCode
from kama.server.transport.server_socket import ServerSocket
from kama.server.transport.upgrade import Upgrade

_log = logging.getLogger("uvicorn.error")


class SansIOSocket(ServerSocket):
    """Frames read by a `websockets` protocol after its handshake, which answers what is no frame."""

    __slots__ = ("_conn",)

    def __init__(self, upgrade: Upgrade) -> None:
        super().__init__(upgrade)
        self._conn = ServerProtocol(state=OPEN, max_size=upgrade.config.ws_max_size, logger=_log)

    def _read(self, data: bytes) -> None:
        conn = self._conn
        conn.receive_data(data)
        for event in conn.events_received():
            if isinstance(event, Frame) and not self._deaf:
                self._take_frame(event)
        conn.data_to_send()  # its own answers, which do not ask whether the peer reads
        if conn.parser_exc is not None and not self._deaf:
            close = conn.close_sent
            self._refuse(close.code if close else CloseCode.INVALID_DATA, close.reason if close else "")

    def _take_frame(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY:
                self._begin_message(frame)
            case Opcode.CONT:
                self._continue_message(frame)
            case Opcode.PING:
                self._answer_ping(bytes(frame.data))
            case Opcode.CLOSE:
                received = self._conn.close_rcvd
                assert received is not None  # this frame
                self._on_close(received.code, received.reason, bytes(frame.data))
            case _:
                """A pong was heard, which is enough."""

    def _begin_message(self, frame: Frame) -> None:
        is_text = frame.opcode is Opcode.TEXT
        if frame.fin:
            self._take(bytes(frame.data), is_text=is_text)
        else:
            self._message, self._is_text = bytearray(frame.data), is_text

    def _continue_message(self, frame: Frame) -> None:
        assert self._message is not None  # else `websockets` refuses it
        self._message += frame.data
        if frame.fin:
            data, self._message = bytes(self._message), None
            self._take(data, is_text=self._is_text)
