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

from kama.server.transport.handshake import read_usual
from kama.server.transport.upgrade import Upgrade

PATIENCE = 10.0


class HTTP(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two, as httptools is there or not
    """uvicorn's, but for two things: it waits for ever for the rest of what asks for something, and it upgrades a
    connection on which something else is still to be answered."""

    _deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_in_a_head:
            self._let_be()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(PATIENCE, self._send_away)

    def handle_websocket_upgrade(self, *event: Any) -> None:
        if self._is_asked:
            # The answer would come among the frames: it is the last thing that is said here.
            self.cycle.keep_alive = False
            self.flow.pause_reading()
        else:
            super().handle_websocket_upgrade(*event)

    @property
    def _is_asked(self) -> bool:
        """Whether a request is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_in_a_head(self) -> bool:
        """Whether it has bytes of a request that it does not handle yet."""
        return not self._is_asked and self.transport.get_protocol() is self

    def _send_away(self) -> None:
        self._deadline = None
        if self._is_in_a_head:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_be()
        super().connection_lost(exc)

    def _let_be(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Door(asyncio.Protocol):
    """Until the first bytes come. Who has said nothing in PATIENCE seconds is sent away."""

    __slots__ = (
        "_app_state",
        "_config",
        "_deadline",
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._deadline = self._loop.call_later(PATIENCE, self.transport.close)
        self._server_state.connections.add(cast(Any, self))

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._server_state.connections.discard(cast(Any, self))

    def shutdown(self) -> None:
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._server_state.connections.discard(cast(Any, self))
        self._deadline.cancel()
        handshake = read_usual(data)
        if handshake is None:
            http = self._make(HTTP)
            http.connection_made(self.transport)
            self.transport.set_protocol(http)
            http.data_received(data)
            return
        self.client = get_remote_addr(self.transport)
        self.scheme = "https" if is_ssl(self.transport) else "http"
        upgrade: Upgrade = self._make(self._config.ws_protocol_class)
        upgrade.connection_made(self.transport)
        self.transport.set_protocol(upgrade)
        upgrade.begin(handshake)

    def _make(self, protocol: Any) -> Any:
        return protocol(self._config, self._server_state, self._app_state, self._loop)
