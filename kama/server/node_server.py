"""A node as a process: uvicorn around it, from the first connection to the last."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import socket
from collections.abc import Callable
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette

from kama.errors import SettingsError
from kama.server.app import Node, build_app
from kama.server.auth import TokenKeeper
from kama.server.logs import configure_logs
from kama.server.transport.door import Door
from kama.server.transport.sansio_socket import SansIOSocket
from kama.server.transport.server_socket import LINGER
from kama.server.transport.upgrade import Upgrade
from kama.settings import Settings

log = structlog.get_logger("kama.node")


class NodeServer(uvicorn.Server):
    """uvicorn, with a drain before its shutdown: by itself it would end all sockets at once with 1012."""

    def __init__(self, config: uvicorn.Config, node: Node, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._node = node
        self._on_started = on_started
        node.ask_to_stop = self._stop

    def _stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        deadline = asyncio.get_running_loop().time() + self._node.settings.server.drain_timeout
        await self._node.drain()
        left = deadline - asyncio.get_running_loop().time()
        self.config.timeout_graceful_shutdown = max(1, min(int(left), int(LINGER) + 1))
        await super().shutdown(sockets)
        # Here and not after `serve`: there uvicorn raises the signal once more, and SIGTERM ends the process.
        await self._node.close()


def server_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Door,
        ws=websocket_class(settings),
        ws_max_size=settings.limits.message_size,
        ws_ping_interval=settings.server.ping_interval,
        ws_ping_timeout=settings.server.pong_timeout,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )


def websocket_class(settings: Settings) -> Any:
    """What uvicorn makes a connection's protocol with. Raises SettingsError when picows is wanted and not there."""
    if settings.server.websocket == "websockets":
        return functools.partial(Upgrade, SansIOSocket)
    try:
        from kama.server.transport.picows_socket import picows_sockets  # compiled, and not everywhere to be had
    except ImportError as error:
        if settings.server.websocket == "auto":
            return functools.partial(Upgrade, SansIOSocket)
        raise SettingsError(
            f"expected picows to be installed, as with pip install 'kama[fast]': {error}", field="server.websocket"
        ) from None
    return functools.partial(Upgrade, picows_sockets(settings.limits.message_size))


async def run(settings: Settings, tokens: TokenKeeper, on_started: Callable[[str], None]) -> None:
    """One node from start to end. Raises OSError when the address cannot be had, SettingsError when the store
    cannot be opened."""
    with _listen(settings.server.host, settings.server.port) as listener:
        host, port = settings.server.host, listener.getsockname()[1]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # Several nodes may listen on all of their addresses, each on a machine of its own: then the machine names it.
        name = f"{socket.gethostname()}:{port}" if host in ("0.0.0.0", "::") else address
        node = Node(settings, tokens, name=name)
        try:
            await node.start()
            config = server_config(build_app(node), settings)
            server = NodeServer(config, node, lambda: on_started(f"http://{address}"))
            await server.serve([listener])
        finally:
            await node.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def serve(settings: Settings, tokens: TokenKeeper, on_started: Callable[[str], None]) -> None:
    """Blocks until the node has ended. `on_started` is told its URL once it listens."""
    configure_logs(settings.log.level, settings.log.format)
    _spare_collector()
    _raise_file_limit(settings.limits.connections)
    loop_factory = uvicorn.Config(Starlette(), log_config=None).get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(run(settings, tokens, on_started))


def _spare_collector() -> None:
    """What is imported stays, and what a message makes is gone with it: the collector has little to find, and looks for
    it through all that is there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _raise_file_limit(connections: int) -> None:
    """Every connection is a file: ask for as many as the system lets us have."""
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + 256
        if soft < wanted:
            allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            if allowed < wanted:
                log.warning("fewer open files than connections", allowed=allowed, connections=connections)
