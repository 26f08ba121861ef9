"""LiveSource: watches one node, and comes back to it for ever."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import TracebackType

import msgspec
from msgspec import Struct

from kama.client import Connection, NodeClient, Token
from kama.errors import CannotConnect, KamaError
from kama.monitor.chain import Chain, Place
from kama.monitor.frames import Item
from kama.monitor.link import (
    GONE_AFTER_MS,
    Incompatible,
    Link,
    LinkState,
    check_hello,
    state_of_bye,
    state_of_close,
    state_of_refusal,
)
from kama.monitor.requests import Requests
from kama.monitor.source import REQUEST_TIMEOUT, Request, wall_ms
from kama.monitor_protocol import (
    Ack,
    Bye,
    Delta,
    Events,
    Hello,
    NodeFrame,
    Outcome,
    Result,
    Snap,
    Sub,
    decode_node_frame,
)

BACKOFF_FIRST = 0.5
BACKOFF_MAX = 15.0
_CONNECT_TIMEOUT = 5.0


class LiveSource:
    """`server` is the node's URL and the source's name; `token` is asked before each try to connect.

    Never ends by itself, whatever the node does: that is what its Links tell. `backoff` gives the seconds before
    the next try from the number of tries that failed.
    """

    def __init__(
        self,
        server: str,
        token: Token,
        sub: Sub | None = None,
        *,
        backoff: Callable[[int], float] | None = None,
    ) -> None:
        self._node = NodeClient(server, token, timeout=_CONNECT_TIMEOUT)
        self._sub = sub or Sub()
        self._backoff = backoff or full_jitter
        self._retry = asyncio.Event()
        self._connection: Connection | None = None
        self._requests = Requests()
        self._ended_by: tuple[LinkState, str] | None = None
        self._frame_ms = 0
        self._items: AsyncGenerator[Item, None] | None = None
        self.name = server
        self.link = Link(since_ms=wall_ms())
        self.hello: Hello | None = None

    async def __aenter__(self) -> LiveSource:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._items is not None:
            await self._items.aclose()
        await self._node.close()

    def __aiter__(self) -> AsyncGenerator[Item, None]:
        """Once: it is one run, from the first try to connect on."""
        self._items = self._run()
        return self._items

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def now_ms(self) -> int:
        return wall_ms()

    async def subscribe(self, sub: Sub) -> None:
        self._sub = sub
        if self._connection is not None:
            await _try_send(self._connection, sub)

    async def request(self, request: Request, *, source: str = "", timeout: float = REQUEST_TIMEOUT) -> Outcome:
        connection = self._connection
        if connection is None or source not in ("", self.name):
            raise CannotConnect(f"{source or self.name} is not connected")
        return await self._requests.ask(request, connection.send, timeout)

    def retry_now(self) -> None:
        self._retry.set()

    # --- the run

    async def _run(self) -> AsyncGenerator[Item, None]:
        yield self._item(self.link)
        while True:
            self._linked(self.link.tried())
            yield self._item(self.link)
            try:
                async with self._node.watch() as connection, aclosing(self._connected(connection)) as items:
                    async for item in items:
                        yield item
            except KamaError as error:
                self._failed(error)
            wait = self._backoff(self.link.attempt)
            self._linked(self.link.tries_again(wall_ms() + round(wait * 1000)))
            yield self._item(self.link)
            await self._until_next_try(wait)
            if self._linked(self.link.waited(self._frame_ms, wall_ms())):
                yield self._item(self.link)

    async def _until_next_try(self, wait: float) -> None:
        self._retry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._retry.wait()

    async def _connected(self, connection: Connection) -> AsyncGenerator[Item, None]:
        """The frames of one connection, until it ends. Raises KamaError then, also for a node that falls silent."""
        self._connection, self._ended_by, chain = connection, None, Chain()
        self._frame_ms = wall_ms()
        try:
            await _try_send(connection, self._sub)
            while True:
                frame = await self._next(connection)
                if frame is None:
                    if self._linked(self.link.waited(self._frame_ms, wall_ms())):
                        yield self._item(self.link)
                    if wall_ms() - self._frame_ms >= GONE_AFTER_MS:
                        raise CannotConnect(f"{self.name} has sent nothing for {GONE_AFTER_MS // 1000} s")
                    continue
                self._frame_ms = wall_ms()
                if self._learned(frame):
                    yield self._item(self.link)
                yield self._item(frame)
                if isinstance(frame, Snap | Delta | Events):
                    await self._acknowledge(connection, chain, frame)
        except KamaError as error:
            self._requests.fail(error)
            raise self._reason(connection, error) from None
        finally:
            self._connection = None
            self._requests = Requests()

    async def _next(self, connection: Connection) -> NodeFrame | None:
        """The next frame; None when nothing came for so long that the link may have changed."""
        try:
            async with asyncio.timeout(self.link.silence_ms / 1000):
                while True:
                    frame = decode_frame(await connection.receive_bytes())
                    if frame is not None:
                        return frame
        except TimeoutError:
            return None

    def _learned(self, frame: NodeFrame) -> bool:
        """What the frame says about the link. Whether that is news. Raises Incompatible."""
        match frame:
            case Hello():
                check_hello(frame)
                self.hello = frame
            case Snap() | Delta():
                return self._linked(self.link.brought(frame.interval_ms, self._sub.interval_ms, wall_ms()))
            case Result():
                self._requests.answer(frame)
            case Bye():
                self._ended_by = state_of_bye(frame, self.hello.node if self.hello else self.name)
                return self._linked(self.link.failed(*self._ended_by, wall_ms()))
            case _:
                pass
        return False

    async def _acknowledge(self, connection: Connection, chain: Chain, frame: Snap | Delta | Events) -> None:
        """Only when whoever iterates has taken the frame: a node has to know who cannot keep up."""
        was_broken = chain.is_broken
        if chain.take(frame) is Place.AFTER_GAP and not was_broken:
            await _try_send(connection, self._sub)
        await _try_send(connection, Ack(frame.seq))

    # --- how the link is

    def _reason(self, connection: Connection, error: KamaError) -> KamaError:
        """The error that ended a connection; remembers what the node said about it."""
        closed = connection.closed_with
        if self._ended_by is None and closed is not None and not isinstance(error, Incompatible):
            code, reason = closed
            self._ended_by = (state_of_close(code), reason or error.message)
        return error

    def _failed(self, error: KamaError) -> None:
        state, cause = self._ended_by or (state_of_refusal(error), error.message)
        self._ended_by = None
        self._linked(self.link.failed(state, cause, wall_ms()))

    def _linked(self, link: Link) -> bool:
        """Whether the link is another one now."""
        is_news, self.link = link != self.link, link
        return is_news

    def _item(self, frame: NodeFrame | Link) -> Item:
        return Item(self.name, frame, wall_ms())


def full_jitter(attempt: int) -> float:
    """Seconds before the next try: anywhere up to half a second, twice that after each failure, up to a quarter of a
    minute. After an outage not all watchers come back in the same moment."""
    return random.uniform(0, min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(attempt - 1, 10)))


async def _try_send(connection: Connection, frame: Sub | Ack) -> None:
    """On a connection that has ended, the node's last words are still to be read; the next one begins anew."""
    with contextlib.suppress(CannotConnect):
        await connection.send(frame)


class _Tagged(Struct):
    type: str


_KNOWN = frozenset({"hello", "history", "snap", "delta", "events", "result", "bye"})


def decode_frame(data: bytes) -> NodeFrame | None:
    """A frame; None for one of a kind that only newer nodes send. Raises Incompatible."""
    try:
        frame: NodeFrame = decode_node_frame(data)
        return frame
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            if msgspec.json.decode(data, type=_Tagged).type not in _KNOWN:
                return None
        raise Incompatible(f"expected a frame of a kama node, got something else: {error}") from None
