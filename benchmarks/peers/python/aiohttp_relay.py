"""A relay on aiohttp's own server."""

from __future__ import annotations

import uvloop
from addresses import decode
from aiohttp import WSMsgType, web
from listening import listener
from tokens import is_good

connections: dict[str, web.WebSocketResponse] = {}


async def relay(request: web.Request) -> web.WebSocketResponse:
    user_id = request.query["client_id"]
    if not is_good(request.headers.get("Authorization"), user_id):
        raise web.HTTPUnauthorized
    connection = web.WebSocketResponse(compress=False, max_msg_size=65536)
    await connection.prepare(request)
    connections[user_id] = connection
    try:
        async for message in connection:
            if message.type is WSMsgType.TEXT:
                for recipient in decode(message.data).recipients(connections):
                    await recipient.send_str(message.data)
    finally:
        del connections[user_id]
    return connection


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/wss", relay)])
    web.run_app(app, sock=listener(), access_log=None, print=None, shutdown_timeout=1, loop=uvloop.new_event_loop())
