"""A relay on stock Starlette and uvicorn, as anybody would write it: one reader and one writer task a connection,
and a bounded queue between them."""

from __future__ import annotations

import asyncio
import contextlib

from addresses import decode
from listening import run_uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from tokens import is_good

QUEUE_SIZE = 100

Outbox = asyncio.Queue[str]
outboxes: dict[str, Outbox] = {}


async def read(websocket: WebSocket) -> None:
    async for text in websocket.iter_text():
        for outbox in decode(text).recipients(outboxes):
            await outbox.put(text)


async def write(websocket: WebSocket, outbox: Outbox) -> None:
    # A peer that has left is the reader's to notice.
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await outbox.get())


async def relay(websocket: WebSocket) -> None:
    user_id = websocket.query_params["client_id"]
    if not is_good(websocket.headers.get("authorization"), user_id):
        await websocket.close()
        return
    await websocket.accept()
    outbox = outboxes[user_id] = Outbox(QUEUE_SIZE)
    try:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(write(websocket, outbox))
            await read(websocket)
            writer.cancel()
    finally:
        del outboxes[user_id]


if __name__ == "__main__":
    run_uvicorn(Starlette(routes=[WebSocketRoute("/wss", relay)]))
