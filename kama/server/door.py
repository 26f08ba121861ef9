"""Door: what uvicorn makes for each connection. It reads the first words, and says who goes on.

A login that comes as logins do needs no parser, and need not be put together for a second one. Everything else is for
uvicorn's own protocol, from the first byte: it finds upgrades too, and has `websockets` judge them.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.utils import get_remote_addr, is_ssl
from uvicorn.server import ServerState

from kama.server.handshake import read_usual
from kama.server.websocket_upgrade import Upgrade

PATIENCE = 10.0


class Door(asyncio.Protocol):
    """Until the first bytes come. Who has not said in PATIENCE seconds what it wants is sent away; uvicorn waits on."""

    __slots__ = (
        "_app_state",
        "_config",
        "_deadline",
        "_http",
        "_loop",
        "_server_state",
        "client",
        "scheme",
        "transport",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._http: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._deadline = self._loop.call_later(PATIENCE, self._send_away)
        self._server_state.connections.add(cast(Any, self))

    def _send_away(self) -> None:
        if self._is_waiting:
            self.transport.close()

    @property
    def _is_waiting(self) -> bool:
        """For the rest of the first request."""
        protocol: Any = self.transport.get_protocol()
        return protocol is self or (protocol is self._http and self._http.cycle is None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._server_state.connections.discard(cast(Any, self))

    def shutdown(self) -> None:
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._server_state.connections.discard(cast(Any, self))
        handshake = read_usual(data)
        if handshake is None:
            http = self._http = self._make(AutoHTTPProtocol)
            http.connection_made(self.transport)
            self.transport.set_protocol(http)
            http.data_received(data)
            if not self._is_waiting:
                self._deadline.cancel()
            return
        self._deadline.cancel()
        self.client = get_remote_addr(self.transport)
        self.scheme = "https" if is_ssl(self.transport) else "http"
        upgrade: Upgrade = self._make(self._config.ws_protocol_class)
        upgrade.connection_made(self.transport)
        self.transport.set_protocol(upgrade)
        upgrade.begin(handshake)

    def _make(self, protocol: Any) -> Any:
        return protocol(self._config, self._server_state, self._app_state, self._loop)
