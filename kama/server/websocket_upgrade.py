"""uvicorn's WebSocket handshake, which ends by handing the connection to a ServerSocket.

Routing, authentication and refusals run through Starlette as everywhere. Once the upgrade is answered the transport
calls the socket, and what the handshake needed is let go of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from kama.server.server_socket import ServerSocket
from kama.server.websocket import SOCKET_KEY


class Upgrade(WebSocketsSansIOProtocol):
    """One handshake. `make_socket` gives what takes over; it may use `conn`, which has parsed the request only."""

    def __init__(self, make_socket: Callable[[Upgrade], ServerSocket], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._make_socket = make_socket
        self._socket: ServerSocket | None = None
        self._early = b""

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated:
            self._early += data
            if not self.read_paused:
                self.read_paused = True
                self.transport.pause_reading()
        else:
            self.conn.receive_data(data)
            self.handle_events()

    def start_keepalive(self) -> None:
        """uvicorn calls this when the upgrade is answered: from here on frames come."""
        socket = self._socket = self._make_socket(self)
        cast(dict[str, Any], self.scope["extensions"])[SOCKET_KEY] = socket
        self.connections.discard(self)
        if self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()
        socket.begin(self._early)

    async def run_asgi(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
            cast(dict[str, Any], self.scope).clear()
            if self._socket is not None:
                await self._socket.run()
        except ClientDisconnected:
            pass
        except Exception:
            self.logger.exception("Exception in ASGI application\n")
            self.send_500_response()
        finally:
            if self._socket is None:
                self.transport.close()
            else:
                self._socket.leave()
