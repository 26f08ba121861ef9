"""The relay as one writes it with python-socketio: each user has a room, and a message is emitted to two of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import socketio
from listening import run_uvicorn
from tokens import is_good

server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], max_http_buffer_size=65536)


@server.event
async def connect(sid: str, environ: dict[str, Any], _auth: object) -> None:
    (user_id,) = parse_qs(environ["QUERY_STRING"])["client_id"]
    if not is_good(environ.get("HTTP_AUTHORIZATION"), user_id):
        raise socketio.exceptions.ConnectionRefusedError("unauthorized")
    await server.enter_room(sid, user_id)


@server.event
async def chat(_sid: str, message: dict[str, Any]) -> None:
    if message["receive_id"].startswith("G"):
        await server.emit("chat", message)
    else:
        await server.emit("chat", message, to=[message["receive_id"], message["send_id"]])


if __name__ == "__main__":
    run_uvicorn(socketio.ASGIApp(server))
