"""The client side of one connection, as cheap as Python allows: the client must not be what is measured.

It speaks just enough WebSocket (RFC 6455) for two servers that are known to behave: unfragmented frames, no
extensions. Its frames are masked with zeros, which costs the server as much as any other mask and the client nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter

import msgspec

_PING, _CLOSE = 0x9, 0x8
_CONTROL = b'{"type":"'
_NUMBER = b"%010d"
_ID_BYTES = 10
MESSAGE_BYTES = 270

OnMessage = Callable[[bytes, float], None]


class Failed(Exception):
    """Something happened that makes the figures worthless."""


class Alarm:
    """Carries a failure from a callback, where nobody would see it, to whoever waits for time to pass."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Failed] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: self.raise_(f"{context['message']}: {context.get('exception')!r}")
        )

    def raise_(self, message: str) -> None:
        if not self._future.done():
            self._future.set_result(Failed(message))

    async def sleep(self, seconds: float) -> None:
        await asyncio.wait([self._future], timeout=seconds)
        if self._future.done():
            raise self._future.result()

    async def until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = perf_counter() + seconds
        while not condition():
            if perf_counter() > deadline:
                raise Failed(f"waited {seconds:g} s in vain for {what}")
            await self.sleep(0.02)


def frame_bytes(opcode: int, payload: bytes) -> bytes:
    """A whole client frame, masked with zeros."""
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


class Template:
    """The messages of one sender to one receiver: all alike but for the number that their content begins with."""

    def __init__(self, send_id: str, receive_id: str) -> None:
        fields = {
            "send_id": send_id,
            "send_name": send_id[:20],
            "send_avatar": "https://example.com/avatar.png",
            "receive_id": receive_id,
            "session_id": f"S{send_id}"[:20],
            "type": 0,
            "content": "",
        }
        filler = MESSAGE_BYTES - len(msgspec.json.encode(fields)) - _ID_BYTES
        if filler < 0:
            raise ValueError("the ids are too long for the size of a message")
        fields["content"] = "#" * _ID_BYTES + "x" * filler
        head, _, tail = frame_bytes(0x1, msgspec.json.encode(fields)).partition(b"#" * _ID_BYTES)
        self._format = (head, tail)

    def frame(self, number: int) -> bytes:
        head, tail = self._format
        return head + _NUMBER % number + tail


def number_of(message: bytes) -> int:
    at = message.find(b'"content":"') + 11
    return int(message[at : at + _ID_BYTES])


class Peer(asyncio.Protocol):
    """One connection. `messages` keeps what came, for the check afterwards; `on_message` hears of it at once."""

    def __init__(self, alarm: Alarm, user_id: str, token: str, needs_catch_up: bool) -> None:
        self.user_id = user_id
        self.messages: list[bytes] = []
        self.on_message: OnMessage | None = None
        self._alarm = alarm
        self._token = token
        self._needs_catch_up = needs_catch_up
        self._is_open = False
        self._leaving = False
        self._buffer = b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, host: str, port: int) -> None:
        """Until the server has let it in and, if it is one that catches clients up, has caught it up."""
        self.transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, host, port)
        request = (
            f"GET /wss?client_id={self.user_id} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self._token}\r\n\r\n"
        )
        self.transport.write(request.encode())
        async with asyncio.timeout(30):
            await self.ready
        self.send = self.transport.write

    def leave(self) -> None:
        self._leaving = True
        self.transport.close()

    # --- what asyncio calls

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        data = self._buffer + data if self._buffer else data
        if not self._is_open:
            head, found, rest = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = data
                return
            data = rest
            self._open(head)
            if not self._is_open:
                return
        self._buffer = data[self._take_frames(data, now) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._leaving:
            self._fail(f"lost its connection: {exc!r}")

    # --- frames

    def _take_frames(self, data: bytes, now: float) -> int:
        """Handle every whole frame; where the next one begins."""
        at, end = 0, len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size > 126:
                self._fail("got a frame of 64 KiB or more")
            if end < start + size:
                break
            payload = data[start : start + size]
            if data[at] == 0x81 and not payload.startswith(_CONTROL):
                self.messages.append(payload)
                if self.on_message is not None:
                    self.on_message(payload, now)
            else:
                self._take_other(data[at] & 0x0F, payload)
            at = start + size
        return at

    def _take_other(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self.transport.write(frame_bytes(0xA, payload))
        elif opcode == _CLOSE:
            self._fail(f"was closed with {int.from_bytes(payload[:2], 'big')}: {payload[2:].decode()}")
        elif b'"event":"caught_up"' in payload:
            self._be_ready()
        elif b'"event":"welcome"' not in payload:
            self._fail(f"got {payload[:200]!r}")

    def _open(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 101"):
            self._fail(f"was refused: {head[:200]!r}")
            return
        self._is_open = True
        if not self._needs_catch_up:
            self._be_ready()

    def _be_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _fail(self, what: str) -> None:
        self._leaving = True
        self._alarm.raise_(f"{self.user_id} {what}")
        if not self.ready.done():
            self.ready.set_exception(Failed(f"{self.user_id} {what}"))


async def connect_all(peers: Sequence[Peer], url: str, at_once: int) -> None:
    """Log them all in, `at_once` side by side. Raises Failed."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    waiting = iter(peers)

    async def work() -> None:
        for peer in waiting:
            await peer.connect(host, int(port))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(work())
    except* (Failed, OSError) as errors:
        raise Failed(f"cannot log in: {errors.exceptions[0]!r}") from None
