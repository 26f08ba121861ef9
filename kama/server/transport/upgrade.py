"""uvicorn's WebSocket protocol, as far as the handshake goes: then it hands the connection to a ServerSocket.

Routing, authentication and refusals run through Starlette as everywhere. Once the upgrade is accepted the transport
calls the socket, and what the handshake needed is let go of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from kama.server.transport.handshake import Handshake, Header, make_answer, make_upgrade, read_handshake
from kama.server.transport.server_socket import ServerSocket
from kama.server.websocket import SOCKET_KEY

log = logging.getLogger("uvicorn.error")

Message = MutableMapping[str, Any]


class Upgrade(asyncio.Protocol):
    """One handshake. `make_socket` gives what takes over. uvicorn makes one when it has read such a request."""

    def __init__(
        self,
        make_socket: Callable[[Upgrade], ServerSocket],
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.config = config
        self.loop = _loop or asyncio.get_running_loop()
        self.connections: set[Any] = server_state.connections
        self._make_socket = make_socket
        self._server_state = server_state
        self._app_state = app_state
        self._handshake: Handshake | None = None
        self._scope: dict[str, Any] = {}
        self._denial: tuple[int, list[Header], bytes] | None = None
        self._is_answered = False
        self._is_connected = False  # as the handler sees it
        self._is_lost = False
        self._lost: asyncio.Event | None = None  # made by who waits for it
        self._socket: ServerSocket | None = None
        self._early = b""

    # --- what uvicorn and the transport call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connections.add(self)
        # Whoever read the request knows who asked: asking the system again would take as long as the rest of this.
        http: Any = self.transport.get_protocol()
        self.client = http.client
        self.scheme = "wss" if http.scheme == "https" else "ws"

    def data_received(self, data: bytes) -> None:
        if self._handshake is None and not self._is_answered:
            handshake = read_handshake(data)
            if isinstance(handshake, bytes):
                self._answer(handshake)
            else:
                self.begin(handshake)
            return
        if not self._early:
            self.transport.pause_reading()
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self.connections.discard(self)
        if self._lost is not None:
            self._lost.set()

    def shutdown(self) -> None:
        """uvicorn is going down: nothing new is let in."""
        self._fail()
        self.transport.close()

    # --- the request

    def begin(self, handshake: Handshake) -> None:
        self._handshake = handshake
        root_path = self.config.root_path
        path, _, query = handshake.target.partition(b"?")
        self._scope = {
            "type": "websocket",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": self.scheme,
            "server": None,  # nobody asks at which of our addresses it came in, and the system would have to be asked
            "client": self.client,
            "root_path": root_path,
            "path": root_path + unquote(path.decode("ascii")),
            "raw_path": root_path.encode("ascii") + path,
            "query_string": query,
            "headers": handshake.headers,
            "subprotocols": _subprotocols(handshake.headers),
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }
        tasks = self._server_state.tasks
        task = self.loop.create_task(self._run())
        task.add_done_callback(tasks.discard)
        tasks.add(task)

    async def _run(self) -> None:
        try:
            await self.config.loaded_app(cast(Any, self._scope), cast(Any, self._receive), cast(Any, self._send))
            self._scope.clear()
            if self._socket is not None:
                await self._socket.run()
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("Exception in ASGI application\n")
            self._fail()
        finally:
            if self._socket is None:
                self.transport.close()
            else:
                self._socket.leave()

    # --- what Starlette calls

    async def _receive(self) -> Message:
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        if not (self._is_answered or self._is_lost):
            self._lost = asyncio.Event()
            await self._lost.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Message) -> None:
        if self._is_lost or self.transport.is_closing():
            raise ClientDisconnected
        kind = message["type"]
        if self._is_answered or (self._denial is not None) is not (kind == "websocket.http.response.body"):
            raise RuntimeError(f"expected no {kind} at this point of a handshake")
        match kind:
            case "websocket.accept":
                self._accept(message)
            case "websocket.close":
                self._answer(make_answer(403, (), b""))
            case "websocket.http.response.start":
                self._denial = (message["status"], list(message.get("headers", ())), b"")
            case "websocket.http.response.body":
                self._deny(message)
            case _:
                raise RuntimeError(f"expected an answer to a handshake, got {kind}")

    def _accept(self, message: Message) -> None:
        assert self._handshake is not None
        headers = [*self._server_state.default_headers, *message.get("headers", ())]
        answer = make_upgrade(self._handshake, headers, message.get("subprotocol"))
        self._is_answered = True
        self.connections.discard(self)
        socket = self._socket = self._make_socket(self)
        self._scope["extensions"][SOCKET_KEY] = socket
        if self._early:
            self.transport.resume_reading()
        socket.begin(answer, self._early)

    def _deny(self, message: Message) -> None:
        assert self._denial is not None
        status, headers, body = self._denial
        body += message.get("body", b"")
        self._denial = (status, headers, body)
        if not message.get("more_body", False):
            self._answer(make_answer(status, headers, body))

    # --- any other answer than the upgrade

    def _answer(self, answer: bytes) -> None:
        self._is_answered = True
        self.transport.write(answer)
        self.transport.close()

    def _fail(self) -> None:
        if not self._is_answered and not self._is_lost and not self.transport.is_closing():
            self._answer(make_answer(500, (), "Internal Server Error"))


def _subprotocols(headers: list[Header]) -> list[str]:
    offered = [value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"]
    return [token.strip() for value in offered for token in value.split(",")]
