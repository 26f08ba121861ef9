"""The client side of one connection, on picows: the client must not be what is measured.

Its messages are made in advance but for their number; what comes is recognised by a search for bytes. No JSON is read.
"""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import msgspec
import uvloop
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

T = TypeVar("T")

_DIGITS = 10
_CONTENT = b'"content":"'
_NOTHING = b"\xff"  # in no text frame: UTF-8 has no such byte
_LOGIN = 30.0
MESSAGE_BYTES = 270


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


@dataclass(frozen=True)
class Dialect:
    """What a server wants around the same JSON. `ready`: what its last frame of a login begins with; empty: the upgrade
    is all. `answers`: to frames that begin so, what is sent back. `ignored`: frames that need no answer."""

    path: str = "/wss?client_id="
    before: bytes = b""
    after: bytes = b""
    ready: bytes = b""
    answers: tuple[tuple[bytes, bytes], ...] = ()
    ignored: tuple[bytes, ...] = ()


DIALECTS = {
    "plain": Dialect(),
    "kama": Dialect(
        ready=b'{"type":"system","content":"caught up"', ignored=(b'{"type":"system","content":"welcome to kama"',)
    ),
    # Engine.IO 4: 0 opens, 2 is a ping and 3 its answer; Socket.IO 5 in it: 40 connects, 42 is an event.
    "socket.io": Dialect(
        path="/socket.io/?EIO=4&transport=websocket&client_id=",
        before=b'42["chat",',
        after=b"]",
        ready=b"40",
        answers=((b"0", b"40"), (b"2", b"3")),
    ),
}


class Template:
    """The messages of one sender to one receiver: all alike but for the number that their content begins with."""

    def __init__(self, send_id: str, receive_id: str, dialect: Dialect) -> None:
        fields = {
            "send_id": send_id,
            "send_name": send_id[:20],
            "send_avatar": "https://example.com/avatar.png",
            "receive_id": receive_id,
            "session_id": f"S{send_id}"[:20],
            "type": 0,
            "content": "",
        }
        filler = MESSAGE_BYTES - len(msgspec.json.encode(fields)) - _DIGITS
        if filler < 0:
            raise ValueError("the ids are too long for the size of a message")
        fields["content"] = "#" * _DIGITS + "x" * filler
        head, _, tail = msgspec.json.encode(fields).partition(b"#" * _DIGITS)
        self._head, self._tail = dialect.before + head, tail + dialect.after

    def message(self, number: int) -> bytes:
        return self._head + _digits(number) + self._tail


# The same for all conversations: looked up faster than made.
@functools.cache
def _digits(number: int) -> bytes:
    return b"%010d" % number


@functools.cache
def mark_of(number: int) -> bytes:
    """What the message of this number has in it, and no other of its conversation."""
    return _CONTENT + _digits(number)


def number_of(message: bytes) -> int:
    at = message.find(_CONTENT) + len(_CONTENT)
    return int(message[at : at + _DIGITS])


class Client(WSListener):
    """One connection; `send` sends a message.

    A frame with `expected` in it is given to `on_message`; any other one ends the run, but for what the dialect of the
    server knows. To be told of every message, expect `any_message`.
    """

    any_message = _CONTENT

    def __init__(self, alarm: Alarm, user_id: str, token: str, dialect: Dialect) -> None:
        self.user_id = user_id
        self.dialect = dialect
        self.expected = _NOTHING
        self.on_message: Callable[[bytes], None] = lambda _message: None
        self._alarm = alarm
        self._token = token
        self._leaving = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def connect(self, url: str) -> None:
        """Until the server has let it in and is done with its login. Raises Failed."""
        self._transport, _ = await ws_connect(
            lambda: self,
            f"ws{url.removeprefix('http')}{self.dialect.path}{self.user_id}",
            extra_headers={"Authorization": f"Bearer {self._token}"},
            websocket_handshake_timeout=_LOGIN,
            # The system's own transport: what is measured beside it goes by uvloop as well.
            use_aiofastnet=False,
        )
        async with asyncio.timeout(_LOGIN):
            await self._ready
        self.send = functools.partial(self._transport.send, WSMsgType.TEXT)

    def leave(self) -> None:
        self._leaving = True
        self._transport.disconnect(graceful=False)

    # --- what picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        if not self.dialect.ready:
            self._ready.set_result(None)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        message = frame.get_payload_as_bytes()
        if self.expected in message:
            self.on_message(message)
        else:
            self._take_other(transport, frame.msg_type, message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self._leaving:
            self._fail("lost its connection")

    def _take_other(self, transport: WSTransport, kind: WSMsgType, payload: bytes) -> None:
        if kind is WSMsgType.CLOSE:
            self._fail(f"was closed with {int.from_bytes(payload[:2], 'big')}: {payload[2:].decode()}")
        elif self.dialect.ready and payload.startswith(self.dialect.ready) and not self._ready.done():
            self._ready.set_result(None)
        elif answer := next((answer for begin, answer in self.dialect.answers if payload.startswith(begin)), None):
            transport.send(WSMsgType.TEXT, answer)
        elif not payload.startswith(self.dialect.ignored or _NOTHING):
            self._fail(f"expected {self.expected!r}, got {payload[:200]!r}")

    def _fail(self, what: str) -> None:
        self._leaving = True
        self._alarm.raise_(f"{self.user_id} {what}")
        if not self._ready.done():
            self._ready.set_exception(Failed(f"{self.user_id} {what}"))


async def connect_all(clients: Sequence[Client], url: str, at_once: int) -> None:
    """Log them all in, `at_once` side by side. Raises Failed."""
    waiting = iter(clients)

    async def work() -> None:
        for client in waiting:
            await client.connect(url)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(work())
    except* (Failed, OSError, TimeoutError, WSError) as errors:
        raise Failed(f"cannot log in: {errors.exceptions[0]!r}") from None


def in_loop(job: Callable[[], Awaitable[T]]) -> T:
    """With uvloop and without pauses for the collector: the client is not what is measured."""

    async def run() -> T:
        return await job()

    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run())
    finally:
        gc.enable()
