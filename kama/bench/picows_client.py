"""PicowsClient: a NodeClient whose WebSockets are read and masked by picows, which is compiled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Literal
from urllib.parse import urlsplit

from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)
from websockets.exceptions import ConnectionClosedError

from kama.client import NodeClient, Socket
from kama.errors import CannotConnect, TimedOut

_FRAME_MAX = 1 << 26
_BUFFER = 1 << 12
_FAREWELL = 2.0
# As websockets does it: a node that neither speaks nor answers is taken for gone.
_PING_AFTER = _PONG_WITHIN = 20.0


class PicowsClient(NodeClient):
    transport = "picows"

    async def _dial(self, path: str, **options: Any) -> Socket:
        try:
            async with asyncio.timeout(self._timeout), _connected(self._server) as plain:
                _, listener = await ws_connect(
                    PicowsSocket,
                    f"ws{self._server.removeprefix('http')}{path}",
                    socket_factory=lambda _url: plain,
                    extra_headers={"Authorization": f"Bearer {self._token()}"},
                    websocket_handshake_timeout=None,
                    enable_auto_ping=True,
                    auto_ping_idle_timeout=_PING_AFTER,
                    auto_ping_reply_timeout=_PONG_WITHIN,
                    max_frame_size=_FRAME_MAX,
                    read_buffer_init_size=_BUFFER,
                    **options,
                )
        except WSInvalidStatusError as refused:
            answer = refused.response
            status, headers = (answer.status.value, answer.headers) if answer else (0, {})
            self._data(refused.raw_body or b"", status, headers.get("retry-after"))
            raise CannotConnect(f"{self._server} refused the upgrade without a reason") from None
        except TimeoutError:
            raise TimedOut(f"{self._server} did not answer the login within {self._timeout:g} s") from None
        except WSHandshakeError as error:
            raise CannotConnect(f"{self._server} does not speak WebSocket: {error}") from None
        except OSError as error:
            raise self._cannot_connect(error) from None
        if not isinstance(listener, PicowsSocket):
            # Where the connection ends before the answer came, picows gives no listener and raises nothing.
            raise CannotConnect(f"lost {self._server} during the login")
        return listener


@contextlib.asynccontextmanager
async def _connected(server: str) -> AsyncIterator[socket.socket]:
    """A socket that is connected to the server; ended when what is done with it within fails, also by cancellation:
    picows leaves its transport open then. Raises OSError."""
    url = urlsplit(server)
    port = url.port or (443 if url.scheme == "https" else 80)
    plain = await _first_that_connects(url.hostname or "", port)
    try:
        yield plain
    except BaseException:
        with contextlib.suppress(OSError):  # the transport may have closed it
            plain.shutdown(socket.SHUT_RDWR)
        raise


async def _first_that_connects(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        plain = socket.socket(family, kind, protocol)
        try:
            plain.setblocking(False)
            await loop.sock_connect(plain, address)
            return plain
        except OSError as error:
            plain.close()
            failure = error
        except BaseException:
            plain.close()
            raise
    raise failure


class PicowsSocket(WSListener):
    """A Socket. What has come and was not asked for yet is kept, however much: a user of a run reads all the time."""

    def __init__(self) -> None:
        self._received: deque[bytes] = deque()
        self._part = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = asyncio.Event()
        self._close: tuple[int, str] = (WSCloseCode.ABNORMAL_CLOSURE.value, "")

    # --- what a Connection asks

    @property
    def close_code(self) -> int | None:
        return self._close[0] if self._ended.is_set() else None

    @property
    def close_reason(self) -> str | None:
        return self._close[1] if self._ended.is_set() else None

    async def send(self, message: bytes, *, text: bool) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        if self._ended.is_set():
            raise ConnectionClosedError(None, None)
        self._transport.send(WSMsgType.TEXT if text else WSMsgType.BINARY, message)

    async def recv(self, *, decode: Literal[False]) -> bytes:
        while not self._received:
            if self._ended.is_set():
                raise ConnectionClosedError(None, None)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._received.popleft()

    async def close(self) -> None:
        if not self._ended.is_set():
            self._transport.send_close(WSCloseCode.OK)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._ended.wait()
            self._transport.disconnect(graceful=False)

    # --- what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind, payload = frame.msg_type, frame.get_payload_as_bytes()
        if kind is WSMsgType.CLOSE:
            self._take_close(payload)
        elif kind is WSMsgType.PONG:
            return
        elif frame.fin and not self._part:
            self._take(payload)
        else:
            self._part += payload
            if frame.fin:
                payload, self._part = bytes(self._part), bytearray()
                self._take(payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._ended.set()
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _take(self, message: bytes) -> None:
        self._received.append(message)
        self._wake()

    def _take_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else WSCloseCode.NO_INFO.value
        self._close = (code, payload[2:].decode("utf-8", "replace"))
        self._transport.send_close(WSCloseCode.OK)
        self._transport.disconnect()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
