"""A proxy before a node that does to messages on their way to a client what a node must not do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

# A user's id, the seq of a message and its frame: the frames that the client gets instead.
Fault = Callable[[str, int, str], list[str]]


class FaultProxy:
    """WebSockets, and the GETs that a relay needs. `url` while it serves."""

    def __init__(self, node: str, fault: Fault) -> None:
        self._node = node
        self._fault = fault
        self.url = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[FaultProxy]:
        options = {"compression": None, "max_size": None}
        async with serve(self._relay, "127.0.0.1", 0, process_request=self._forward, **options) as server:
            self.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            yield self

    async def _forward(self, _connection: ServerConnection, request: Request) -> Response | None:
        if "Upgrade" in request.headers:
            return None
        token = {"Authorization": request.headers.get("Authorization", "")}
        async with httpx2.AsyncClient(base_url=self._node, trust_env=False, verify=False) as client:
            answer = await client.get(request.path, headers=token)
        headers = Headers({"Content-Length": str(len(answer.content)), "Connection": "close"})
        return Response(answer.status_code, "", headers, answer.content)

    async def _relay(self, client: ServerConnection) -> None:
        assert client.request is not None
        token = {"Authorization": client.request.headers["Authorization"]}
        path = client.request.path
        user_id = path.partition("client_id=")[2].partition("&")[0]
        async with (
            connect(
                f"ws{self._node.removeprefix('http')}{path}", additional_headers=token, compression=None, proxy=None
            ) as node,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._to_client(node, client, user_id))
            with contextlib.suppress(ConnectionClosed):
                async for frame in client:
                    await node.send(frame)
            await node.close()

    async def _to_client(self, node: ClientConnection, client: ServerConnection, user_id: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for data in node:
                frame = data if isinstance(data, str) else data.decode()
                content = json.loads(frame)
                passed = self._fault(user_id, content["seq"], frame) if "send_id" in content else [frame]
                for one in passed:
                    await client.send(one)
        await client.close()
