"""How the Python servers listen: on a free port, which they print."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn


def listener() -> socket.socket:
    made = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"listens on http://127.0.0.1:{made.getsockname()[1]}", flush=True)
    return made


def run_uvicorn(app: Any, *, lifespan: str = "off") -> None:
    """uvicorn with uvloop and httptools, as its extra `standard` has it, and its fastest class for WebSockets."""
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=65536,
        ws_per_message_deflate=False,
        lifespan=lifespan,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    with listener() as made:
        uvicorn.Server(config).run([made])
