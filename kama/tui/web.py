"""The dashboard in a browser of this machine: a process for each tab, behind textual-serve (the extra `kama[web]`)."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from aiohttp import web
from textual_serve.server import Server

HOST = "127.0.0.1"


class LocalServer(Server):
    """textual-serve asks nobody who they are: so it is for this machine, and for no page but its own."""

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Raises HTTPForbidden for a page from elsewhere, which could see and type whatever this person can."""
        origin = request.headers.get("Origin")
        if origin != self.public_url:
            raise web.HTTPForbidden(text=f"expected the page at {self.public_url}, got {str(origin)[:100]!r}")
        return await super().handle_websocket(request)


def serve_in_browser(arguments: Sequence[str], port: int) -> None:
    """Until Ctrl-C: `kama monitor` with these arguments for each tab at http://127.0.0.1:port."""
    command = shlex.join([sys.executable, "-m", "kama", "monitor", *arguments])
    LocalServer(command, host=HOST, port=port, title="kama monitor").serve()
