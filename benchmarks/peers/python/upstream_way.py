"""The relay the way KamaChat goes about it, on stock Starlette and uvicorn: one loop takes message after message from a
queue of 100, stores each with a commit of its own, and passes it on; each frame that was written to a socket marks the
message as sent, with one more commit. SQLite, WAL, `synchronous = FULL`: a commit is on the disk when it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator

import aiosqlite
import msgspec
from addresses import Address
from listening import run_uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from tokens import is_good

QUEUE_SIZE = 100
SCHEMA = """
CREATE TABLE message (
    uuid INTEGER PRIMARY KEY, session_id TEXT, type INTEGER, content TEXT, url TEXT, send_id TEXT, send_name TEXT,
    send_avatar TEXT, receive_id TEXT, file_type TEXT, file_name TEXT, file_size TEXT, status INTEGER,
    created_at INTEGER, send_at INTEGER
);
CREATE INDEX message_session_id ON message (session_id);
CREATE INDEX message_send_id ON message (send_id);
CREATE INDEX message_receive_id ON message (receive_id);
"""
INSERT = "INSERT INTO message VALUES (?, ?, 0, ?, '', ?, ?, ?, ?, '', '', '0B', 0, ?, NULL)"
MARK_SENT = "UPDATE message SET status = 1 WHERE uuid = ?"

Outbox = asyncio.Queue[tuple[int, str]]


class Request(Address):
    session_id: str
    content: str
    send_name: str
    send_avatar: str


decode = msgspec.json.Decoder(Request).decode
transmit: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)
outboxes: dict[str, Outbox] = {}
numbers = itertools.count(1)


async def consume(database: aiosqlite.Connection) -> None:
    while True:
        text = await transmit.get()
        message, uuid = decode(text), next(numbers)
        row = (uuid, message.session_id, message.content, message.send_id, message.send_name, message.send_avatar)
        await database.execute(INSERT, (*row, message.receive_id, int(time.time())))
        await database.commit()
        for outbox in message.recipients(outboxes):
            await outbox.put((uuid, text))


async def write(websocket: WebSocket, outbox: Outbox, database: aiosqlite.Connection) -> None:
    # A peer that has left is the reader's to notice.
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            uuid, text = await outbox.get()
            await websocket.send_text(text)
            await database.execute(MARK_SENT, (uuid,))
            await database.commit()


async def relay(websocket: WebSocket) -> None:
    user_id = websocket.query_params["client_id"]
    if not is_good(websocket.headers.get("authorization"), user_id):
        await websocket.close()
        return
    await websocket.accept()
    outbox = outboxes[user_id] = Outbox(QUEUE_SIZE)
    try:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(write(websocket, outbox, websocket.app.state.database))
            async for text in websocket.iter_text():
                await transmit.put(text)
            writer.cancel()
    finally:
        del outboxes[user_id]


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with aiosqlite.connect(os.environ["PEER_DATABASE"]) as database, asyncio.TaskGroup() as tasks:
        await database.execute("PRAGMA journal_mode = WAL")
        await database.execute("PRAGMA synchronous = FULL")
        await database.executescript(SCHEMA)
        app.state.database = database
        consumer = tasks.create_task(consume(database))
        yield
        consumer.cancel()


if __name__ == "__main__":
    run_uvicorn(Starlette(routes=[WebSocketRoute("/wss", relay)], lifespan=lifespan), lifespan="on")
