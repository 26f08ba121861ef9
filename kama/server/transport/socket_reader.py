"""SocketReader: a Socket for a task that reads it at its own pace."""

from __future__ import annotations

import asyncio

from kama.server.websocket import Socket


class SocketReader:
    """A message is taken when it is asked for; the rest waits in the socket, and then with the peer."""

    leaves_with_its_task = True

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._frame: bytes | None = None
        self._over = False
        self._came = asyncio.Event()
        self._writable = asyncio.Event()
        socket.listen(self)

    def on_frame(self, data: bytes) -> None:
        self._frame = data
        self._socket.hold()
        self._came.set()

    def on_writable(self) -> None:
        self._writable.set()

    def on_end(self) -> None:
        self._over = True
        self._came.set()

    async def receive_frame(self) -> bytes | None:
        """The payload of the next message; None once the connection has ended. For one reader."""
        if self._frame is None and not self._over:
            self._came.clear()
            self._socket.release()
            await self._came.wait()
        data, self._frame = self._frame, None
        return data

    async def drain(self) -> None:
        """Until the peer takes data again, or is gone."""
        while not self._socket.can_write:
            self._writable.clear()
            await self._writable.wait()
