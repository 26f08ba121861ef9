"""NodeClient: talks to a node over HTTP and WebSocket, as any client would; failures come as the family in errors."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

import httpx2
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI

from kama.address import check_server
from kama.errors import BadParameter, CannotConnect, KamaError, TimedOut, error_from_code
from kama.protocol import encode

Frame = dict[str, Any]
Token = Callable[[], str]

_decode = msgspec.json.decode


class NodeClient:
    """`server` is the node's URL, `token` gives one whenever one is needed, `timeout` is in seconds.

    Raises CannotConnect when nothing answers, TimedOut when an answer takes too long, and what the node answers.
    """

    transport = "websockets"

    def __init__(self, server: str, token: Token, *, timeout: float = 10.0) -> None:
        self._server = check_server(server, "NodeClient")
        self._token = token
        self._timeout = timeout
        self._http: httpx2.AsyncClient | None = None

    async def __aenter__(self) -> NodeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def probe(self) -> None:
        """Raises CannotConnect or TimedOut unless something answers at the address. Needs no token."""
        await self._request("GET", "/health/live")

    # --- HTTP

    async def get(self, path: str, **query: str | int | None) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return await self.call("GET", path, query=given)

    async def post(self, path: str, body: Any) -> Any:
        return await self.call("POST", path, body=body)

    async def delete(self, path: str) -> Any:
        return await self.call("DELETE", path)

    async def call(
        self, method: str, path: str, *, query: Mapping[str, str | int] | None = None, body: Any = None
    ) -> Any:
        """One request; answers the envelope's `data`."""
        headers = {"Authorization": f"Bearer {self._token()}"}
        content = None if body is None else _encoded(body)
        response = await self._request(method, path, params=query or None, content=content, headers=headers)
        return self._data(response.content, response.status_code, response.headers.get("retry-after"))

    def _http_client(self) -> httpx2.AsyncClient:
        """Made when it is needed: many clients only ever open a socket, and a TLS context takes its time."""
        if self._http is None:
            is_tls = self._server.startswith("https:")
            self._http = httpx2.AsyncClient(
                base_url=self._server, timeout=self._timeout, trust_env=False, verify=is_tls
            )
        return self._http

    async def _request(self, method: str, path: str, **details: Any) -> httpx2.Response:
        try:
            return await self._http_client().request(method, path, **details)
        except httpx2.ConnectError as error:
            raise self._cannot_connect(error) from None
        except httpx2.TimeoutException:
            raise TimedOut(f"{self._server} did not answer {method} {path} within {self._timeout:g} s") from None
        except httpx2.HTTPError as error:
            raise CannotConnect(f"lost {self._server} during {method} {path}: {error}") from None

    def _data(self, content: bytes | bytearray, status: int, retry_after: str | None = None) -> Any:
        try:
            answer = _decode(content)
            code, message = int(answer["code"]), str(answer["msg"])
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            raise CannotConnect(
                f"{self._server} answered HTTP {status}, and not as a kama node does", hint="check the address"
            ) from None
        if code == 1000:
            return answer.get("data")
        raise error_from_code(code, message, retry_after=_seconds(retry_after))

    def _cannot_connect(self, error: BaseException) -> CannotConnect:
        return CannotConnect(f"no kama node answers at {self._server}: {_root_of(error)}", hint="start one: kama serve")

    # --- WebSocket

    @contextlib.asynccontextmanager
    async def login(
        self, user_id: str, *, device: str = "", post_only: bool = False, **transport: Any
    ) -> AsyncIterator[Connection]:
        """A WebSocket of that user, open within the block. `transport`: options of websockets' `connect`."""
        query = {"client_id": user_id}
        if device:
            query["device"] = device
        if post_only:
            query["post_only"] = "1"
        async with self._upgraded(f"/wss?{urlencode(query)}", **transport) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[Connection]:
        """The WebSocket of who watches this node, open within the block. A node that is silent for long ends it."""
        async with self._upgraded("/monitor/ws", ping_interval=2, ping_timeout=5) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _upgraded(self, path: str, **options: Any) -> AsyncIterator[Connection]:
        socket = await self._dial(path, **options)
        try:
            yield Connection(socket)
        finally:
            await socket.close()

    async def _dial(self, path: str, **options: Any) -> Socket:
        """An upgraded connection to the node. A class that overrides this goes by another library than websockets."""
        try:
            return await connect(
                f"ws{self._server.removeprefix('http')}{path}",
                additional_headers={"Authorization": f"Bearer {self._token()}"},
                open_timeout=self._timeout,
                close_timeout=2,
                compression=None,
                max_size=None,
                proxy=None,
                **options,
            )
        except InvalidStatus as refused:
            answer = refused.response
            self._data(answer.body or b"", answer.status_code, answer.headers.get("retry-after"))
            raise CannotConnect(f"{self._server} refused the upgrade without a reason") from None
        except TimeoutError:
            raise TimedOut(f"{self._server} did not answer the login within {self._timeout:g} s") from None
        except InvalidMessage as error:
            raise CannotConnect(f"{self._server} does not speak WebSocket: {error}") from None
        except (InvalidHandshake, InvalidURI, OSError) as error:
            raise self._cannot_connect(error) from None


class Socket(Protocol):
    """What a Connection asks of a WebSocket, in the words of websockets: `send` and `recv` raise its ConnectionClosed.

    `close_code` is None until the connection has ended.
    """

    @property
    def close_code(self) -> int | None: ...

    @property
    def close_reason(self) -> str | None: ...

    async def send(self, message: bytes, *, text: bool) -> None: ...

    async def recv(self, *, decode: Literal[False]) -> bytes: ...

    async def close(self) -> None: ...


class Connection:
    """One open WebSocket: frames out, frames in, both as JSON objects."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """The close code and reason, once the connection has ended."""
        code = self._socket.close_code
        return None if code is None else (code, self._socket.close_reason or "")

    async def send(self, frame: Any) -> None:
        """Raises CannotConnect when the connection has ended."""
        try:
            await self._socket.send(_encoded(frame), text=True)
        except ConnectionClosed:
            raise self._ended() from None

    async def receive_bytes(self) -> bytes:
        """The next frame as it came. Raises CannotConnect when the connection has ended."""
        try:
            return await self._socket.recv(decode=False)
        except ConnectionClosed:
            raise self._ended() from None

    async def receive(self) -> Frame:
        """The next frame. Raises CannotConnect when the connection has ended, or the other side is no node."""
        data = await self.receive_bytes()
        try:
            frame = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            frame = None
        if not isinstance(frame, dict):
            raise CannotConnect("expected frames that are JSON objects, as a kama node sends, got another one")
        return frame

    def _ended(self) -> CannotConnect:
        code, reason = self.closed_with or (1006, "")
        return CannotConnect(f"the connection ended with {code}{f' ({reason})' if reason else ''}")


def _encoded(value: Any) -> bytes:
    try:
        return encode(value)
    except UnicodeEncodeError:
        raise BadParameter("expected text that can be written in UTF-8, got a lone surrogate") from None


def _root_of(error: BaseException) -> str:
    """The reason that the system gave: what libraries wrap it in says that all attempts failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror and cause.errno is not None:
            # asyncio writes its own sentence there; a failed look-up has a number that is not the system's.
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after and re.fullmatch("[0-9]{1,6}", retry_after) else 1.0


def error_of(frame: Frame) -> KamaError:
    """An error frame as the error that it was at the node."""
    retry = frame.get("retry_after_ms")
    return error_from_code(
        int(frame.get("code", 0)),
        str(frame.get("message", "")),
        field=frame.get("field"),
        retry_after=retry / 1000 if isinstance(retry, int | float) else 1.0,
    )
