"""Watching: a source that runs into a store beside a test. FakeNode: a WebSocket server that says what it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType

import msgspec
from simulated_node import SimulatedNode
from support import eventually, token
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from kama.monitor.frames import Frame
from kama.monitor.link import Link, LinkState
from kama.monitor.live_source import LiveSource
from kama.monitor.source import Source
from kama.monitor.store import MonitorStore
from kama.monitor_protocol import (
    MessageTrace,
    NodeFrame,
    Outcome,
    Result,
    Snapshot,
    Sub,
    Trace,
    WatcherFrame,
    decode_watcher_frame,
)


def viewer() -> str:
    return token("Uviewer", "viewer")


def admin() -> str:
    return token("Uadmin", "admin")


def live_source(url: str, read: object = viewer, sub: Sub | None = None, **options: object) -> LiveSource:
    """One that tries again soon."""
    return LiveSource(url, read, sub, **{"backoff": lambda attempt: 0.05, **options})  # type: ignore[arg-type]


class Watching:
    """`async with Watching(source) as watching`: what comes goes into `watching.store`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.store = MonitorStore()
        self.links: dict[str, list[Link]] = {}
        self.frames: list[Frame] = []

    async def __aenter__(self) -> Watching:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        async with self.source:
            async for item in self.source:
                self.frames.append(item.frame)
                if isinstance(item.frame, Link):
                    self.links.setdefault(item.source, []).append(item.frame)
                self.store.apply(item.source, item.frame, item.at_ms)

    def states(self, name: str = "") -> list[LinkState]:
        """The states that the link went through, one after the other."""
        states = [link.state for link in self.links.get(name or self.source.names[0], [])]
        return [state for at, state in enumerate(states) if at == 0 or states[at - 1] is not state]

    async def until(self, state: LinkState, name: str = "", seconds: float = 15) -> Link:
        """Until the link is in that state now."""

        def found() -> Link | None:
            assert not self._task.done(), self._task
            links = self.links.get(name or self.source.names[0])
            return links[-1] if links and links[-1].state is state else None

        link: Link = await eventually(found, seconds)
        return link


class FakeNode:
    """`frames` are sent on each connection, once its first frame came; what a watcher sends is in `received`.

    `trace`: its answer to each Trace; `snapshot`: what it shows over HTTP.
    """

    def __init__(
        self,
        *frames: NodeFrame | bytes,
        snapshot: Snapshot | None = None,
        trace: MessageTrace | None = None,
        port: int = 0,
    ) -> None:
        self.frames = frames
        self.snapshot = snapshot
        self.trace = trace
        self.received: list[list[WatcherFrame]] = []
        self.connections: list[ServerConnection] = []
        self._port = port

    async def __aenter__(self) -> FakeNode:
        self._server: Server = await serve(self._serve, "127.0.0.1", self._port, process_request=self._answer)
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self.url = f"http://{self.address}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.transport.abort()  # as a process that is killed
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        frames: list[WatcherFrame] = []
        self.received.append(frames)
        self.connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            async for data in connection:
                frames.append(decode_watcher_frame(data))
                if len(frames) == 1:
                    await self.say(*self.frames)
                if isinstance(frames[-1], Trace) and self.trace is not None:
                    await self.say(Result(request=frames[-1].request, outcome=Outcome(trace=self.trace)))

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path != "/monitor/snapshot":
            return None
        body = msgspec.json.encode({"code": 1000, "msg": "success", "data": self.snapshot})
        return Response(200, "OK", Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)

    async def say(self, *frames: NodeFrame | bytes) -> None:
        """On the last connection."""
        for frame in frames:
            await self.connections[-1].send(
                frame if isinstance(frame, bytes) else msgspec.json.encode(frame), text=True
            )


@contextlib.asynccontextmanager
async def fake(node: SimulatedNode) -> AsyncIterator[FakeNode]:
    """A node that greets and snaps, with the truth of `node`."""
    async with FakeNode(node.hello(), node.snap()) as server:
        yield server
