"""Somebody who watches a node, with the frames as they came and what they add up to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

from support import bearer, small_socket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from kama.monitor_protocol import (
    Client,
    Closed,
    Delta,
    Event,
    Events,
    Hello,
    Node,
    NodeFrame,
    Result,
    Snap,
    decode_node_frame,
)

T = TypeVar("T")


class Watch:
    """`async with Watch(node.url) as watch` waits for the hello. A `frozen` one reads nothing until `thaw`."""

    def __init__(
        self,
        url: str,
        *,
        role: Any = "viewer",
        acks: bool = True,
        headers: dict[str, str] | None = None,
        subprotocols: Any = None,
    ) -> None:
        self._url = f"ws{url.removeprefix('http')}/monitor/ws"
        self._headers = bearer("Uwatch", role) if headers is None else headers
        self._subprotocols = subprotocols
        self.acks = acks
        self.frames: list[NodeFrame] = []
        self.nodes: dict[str, Node] = {}
        self.clients: dict[str, Client] = {}
        self.closed_clients: list[Closed] = []
        self.events: list[Event] = []
        self.faults: list[str] = []
        self.closed: tuple[int, str] | None = None
        self._seq = self._base = 0
        self._reading = asyncio.Event()
        self._reading.set()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Watch:
        self.socket: ClientConnection = await connect(
            self._url,
            additional_headers=self._headers,
            subprotocols=self._subprotocols,
            compression=None,
            max_size=None,
            max_queue=1,
            proxy=None,
            close_timeout=1,
            ping_interval=None,
            sock=small_socket(self._url),
        )
        self._reader = asyncio.get_running_loop().create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.thaw()
        await self.socket.close()
        await asyncio.wait([self._reader])

    def freeze(self) -> None:
        self._reading.clear()

    def thaw(self) -> None:
        self._reading.set()

    async def _read(self) -> None:
        try:
            while True:
                await self._reading.wait()
                await self._take(decode_node_frame(await self.socket.recv()))
                self._changed.set()
        except ConnectionClosed:
            pass
        self.closed = (self.socket.close_code or 1006, self.socket.close_reason or "")
        self._changed.set()

    async def _take(self, frame: NodeFrame) -> None:
        self.frames.append(frame)
        if not isinstance(frame, Snap | Delta | Events):
            return
        if frame.seq != self._seq + 1:
            self.faults.append(f"{frame.seq} came after {self._seq}")
        self._seq = frame.seq
        if isinstance(frame, Events):
            self.events += frame.items
        elif isinstance(frame, Snap):
            self.nodes = {node.name: node for node in frame.nodes}
            self.clients = {client.id: client for client in frame.clients}
            self.closed_clients = list(frame.closed)
            self._base = frame.seq
        else:
            if frame.base != self._base:
                self.faults.append(f"{frame.seq} changes {frame.base}, not {self._base}")
            self._base = frame.seq
            self.nodes |= {node.name: node for node in frame.nodes}
            for gone in frame.gone:
                del self.clients[gone]
            self.clients |= {client.id: client for client in frame.clients}
            self.closed_clients += frame.closed
        if self.acks:
            await self.say({"type": "ack", "seq": frame.seq})

    async def say(self, frame: Any) -> None:
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def ask(self, kind: str, **details: Any) -> Result:
        """A request and its answer."""
        request = f"r{len(self.frames)}-{kind}" if "request" not in details else details["request"]
        before = len(self.of(Result))
        await self.say({"type": kind, "request": request, **details})
        return (await self.wait_for(lambda: self.of(Result)[before:]))[0]

    def of(self, kind: type[T]) -> list[T]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    async def hello(self) -> Hello:
        return (await self.wait_for(lambda: self.of(Hello)))[0]

    async def snap(self, **sub: Any) -> Snap:
        """What it sees first after asking for it."""
        before = len(self.of(Snap))
        await self.say({"type": "sub", **sub})
        return (await self.wait_for(lambda: self.of(Snap)[before:]))[0]

    async def event(self, kind: str, wanted: Callable[[Event], bool] = lambda event: True) -> Event:
        """The first event of the kind, come already or still to come."""
        found = await self.wait_for(lambda: [each for each in self.events if each.kind == kind and wanted(each)])
        return found[0]

    async def wait_for(self, condition: Callable[[], T], seconds: float = 15) -> T:
        """What the condition gives once it is true, looked at after each frame."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := condition()):
                    assert self.closed is None, f"closed with {self.closed}"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain: {self.frames[-2:]}") from None
        return found

    async def wait_for_close(self, seconds: float = 15) -> tuple[int, str]:
        async with asyncio.timeout(seconds):
            while self.closed is None:
                self._changed.clear()
                await self._changed.wait()
        return self.closed
