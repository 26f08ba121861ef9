"""The bare relay: kama's server stack with nothing but relaying. No tokens, no storing, no order, no limits.

What it costs is what Starlette, uvicorn and the sockets cost. It is written as anybody would write it: one reader
and one writer task per connection, and a bounded queue between them. It runs as a process of its own, by its path.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

QUEUE_SIZE = 100  # kama's limits.channel_size

Outbox = asyncio.Queue[str]
outboxes: dict[str, Outbox] = {}


class Address(msgspec.Struct):
    """What a relay needs to know of a message."""

    send_id: str
    receive_id: str


decode = msgspec.json.Decoder(Address).decode


def recipients(address: Address) -> Iterable[Outbox]:
    """Of a pair the receiver and the sender; of a group everybody: only its members are connected."""
    if address.receive_id[0] == "G":
        return list(outboxes.values())
    ends = (outboxes.get(address.receive_id), outboxes.get(address.send_id))
    return [outbox for outbox in ends if outbox is not None]


async def read(websocket: WebSocket) -> None:
    async for text in websocket.iter_text():
        for outbox in recipients(decode(text)):
            await outbox.put(text)


async def write(websocket: WebSocket, outbox: Outbox) -> None:
    # A peer that has left is the reader's to notice.
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await outbox.get())


async def relay(websocket: WebSocket) -> None:
    user_id = websocket.query_params["client_id"]
    await websocket.accept()
    outbox = outboxes[user_id] = Outbox(QUEUE_SIZE)
    try:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(write(websocket, outbox))
            await read(websocket)
            writer.cancel()
    finally:
        del outboxes[user_id]


def main() -> None:
    app = Starlette(routes=[WebSocketRoute("/wss", relay)])
    config = uvicorn.Config(
        app,
        # kama's options, with the protocol class that kama's own is made from. loop and http are left at "auto",
        # as kama leaves them: uvloop and httptools when they are installed.
        ws="websockets-sansio",
        ws_max_size=65536,
        ws_ping_interval=25,
        ws_ping_timeout=10,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(f"bare relay listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
