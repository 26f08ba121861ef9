"""UserConn: one connection of one user. One reader, one writer, and a bounded send-back queue between.

Inbound waits: the reader stops reading while its message finds no room. Outbound never waits: `offer` puts a
frame into the queue, and a peer that lets the queue run full leaves with 4008 and is caught up when it returns.
Each conversation reaches a connection in seq order, each seq once (see `pushed`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from kama.errors import CloseCode, KamaError
from kama.protocol import AckFrame, Behind, SystemFrame, encode, error_frame
from kama.server.auth import Identity
from kama.server.broker import Record, Stored
from kama.server.events import Journal
from kama.server.message_back import MessageBack
from kama.server.pushed import Pushed
from kama.server.tasks import cancel, spawn
from kama.server.websocket import Socket

log = structlog.get_logger("kama.gateway")

_PAGE = 100
_POSITIONS_MAX = 1000
_LOOK_AGAIN = 0.05


def retry_reason() -> str:
    """The reason of a 1001: when to come back. Spread out, so that not everybody comes at once."""
    return f'{{"retry_after_ms":{random.randint(100, 3000)}}}'


class Backlog(Protocol):
    """What a connection reads from the store."""

    async def positions(self, user_id: str) -> Sequence[tuple[str, int, int]]:
        """(conversation, the user's sent seq, last seq) of each of the user's conversations."""
        ...

    async def page(self, conversation: str, after_seq: int, limit: int) -> list[MessageBack]: ...


@dataclass(frozen=True, slots=True)
class ConnLimits:
    """`messages` and `bytes` bound the send-back queue, `resume` what catch-up pushes of one conversation."""

    messages: int = 100
    bytes: int = 1 << 20
    resume: int = 300


@dataclass(slots=True)
class ConnCounters:
    received: int = 0
    written: int = 0
    dropped: int = 0
    high_water: int = 0
    refused: int = 0
    error: str = ""  # what it was last refused


@dataclass(eq=False, slots=True)
class UserConn:
    """Made by the login handler, run by Sessions. `sent(conn, message, advance)` is told of each message that left
    this process; `advance`: and so did everything before it. `closed` is told once, by whoever ends it first."""

    id: str
    identity: Identity
    socket: Socket
    welcome: bytes
    backlog: Backlog
    limits: ConnLimits
    sent: Callable[[UserConn, MessageBack, bool], None]
    closed: Callable[[UserConn], None]
    device: str = ""
    address: str = ""
    post_only: bool = False
    since: float = field(default_factory=time.time)
    last: float = 0.0  # when it last sent a frame, in Unix seconds
    journal: Journal = field(default_factory=Journal)
    closing: tuple[int, str] | None = None
    counters: ConnCounters = field(default_factory=ConnCounters)
    pushed: Pushed = field(default_factory=Pushed)
    _queue: deque[MessageBack | bytes] = field(default_factory=deque)
    _queued_bytes: int = 0
    _unconfirmed: deque[MessageBack | bytes] = field(default_factory=deque)
    _unconfirmed_bytes: int = 0
    _look: asyncio.Handle | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: asyncio.Task[None] | None = None

    @property
    def user_id(self) -> str:
        return self.identity.user_id

    @property
    def depth(self) -> int:
        """Frames in the send-back queue."""
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    # --- the run of a connection

    async def run(self, on_frame: Callable[[UserConn, bytes], Awaitable[None]]) -> None:
        """Until the peer leaves or `close` is called. The caller registers it before and discards it after."""
        self._writer = spawn(self._write_loop(), name=f"writer {self.id}")
        try:
            while (frame := await self.socket.receive_frame()) is not None:
                if self.closing is None:
                    self.counters.received += 1
                    self.last = time.time()
                    self.journal.traffic.received += 1
                    await on_frame(self, frame)
        except Exception:
            self.close(CloseCode.INTERNAL_ERROR, "the node failed on this connection: its log says why")
            raise
        finally:
            self.close(*(self.socket.ended or (CloseCode.NORMAL, "")))
            await cancel(self._writer)

    def close(self, code: int, reason: str = "") -> None:
        """End the connection's run with this close code. The first call decides; it never waits.

        What is queued goes out first if the peer takes it; what it does not take stays unsent.
        """
        if self.closing is not None:
            return
        self._flush()
        self.closing = (code, reason)
        self._forget_queue()
        self.socket.close_now(code, reason)
        self._room.set()
        if self._writer is not None:
            self._writer.cancel()
        self.closed(self)

    # --- what others give to it, never waiting

    def offer(self, back: MessageBack) -> None:
        """A stored message, live."""
        if self.closing is not None:
            return
        if self.post_only:
            if back.send_id == self.user_id:
                self._enqueue(back, len(back.frame))
        elif self.pushed.take_live(back.conversation, back.seq):
            self._enqueue(back, len(back.frame))
        else:
            self._wake.set()

    def offer_control(self, frame: bytes) -> None:
        """An ack, an error, a status: small, and nobody else will tell."""
        if self.closing is None:
            self._enqueue(frame, len(frame))

    def offer_ephemeral(self, frame: bytes) -> bool:
        """A call signal: the first to be dropped, from half full on. False when it was."""
        if self.closing is not None or self.post_only:
            return False
        if len(self._queue) * 2 >= self.limits.messages or self._queued_bytes * 2 >= self.limits.bytes:
            self._drop("call signal: send-back queue half full")
            return False
        self._enqueue(frame, len(frame))
        return True

    def settled(self, record: Record, outcome: Stored | KamaError) -> None:
        """What became of a message that this connection sent."""
        client_msg_id = record.request.client_msg_id
        if isinstance(outcome, KamaError):
            self.offer_control(error_frame(outcome, client_msg_id))
        elif client_msg_id is not None:
            self.offer_control(encode(AckFrame(client_msg_id=client_msg_id, uuid=str(outcome.uuid))))

    async def push(self, item: MessageBack | bytes) -> None:
        """For the reader's own answers: wait until the queue is half empty, then enqueue."""
        while self.closing is None and len(self._queue) * 2 >= self.limits.messages:
            self._room.clear()
            await self._room.wait()
        if self.closing is None:
            self._enqueue(item, _size(item))

    def _enqueue(self, item: MessageBack | bytes, size: int) -> None:
        if self._is_full(size):
            # A burst may come before the writer's turn: only a peer that does not read is slow.
            self._flush()
            if self._is_full(size):
                self._drop("send-back queue full")
                self.close(CloseCode.SLOW_CONSUMER, "send-back queue full")
                return
        self._queue.append(item)
        self._queued_bytes += size
        self.journal.traffic.enqueued()
        if len(self._queue) > self.counters.high_water:
            self.counters.high_water = len(self._queue)
        self._wake.set()

    def _is_full(self, size: int) -> bool:
        return len(self._queue) >= self.limits.messages or (
            bool(self._queue) and self._queued_bytes + size > self.limits.bytes
        )

    def _drop(self, why: str) -> None:
        self.counters.dropped += 1
        self.journal.traffic.dropped += 1
        self.journal.dropped(self.user_id, self.id, why)

    def _forget_queue(self) -> None:
        self.journal.traffic.queued -= len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0

    # --- the writer

    async def _write_loop(self) -> None:
        try:
            self.socket.write_frames([self.welcome])
            if not self.post_only:
                await self._catch_up()
            while True:
                await self._drain()
                if not await self._refill():
                    self._wake.clear()
                    await self._wake.wait()
        except Exception as error:
            # The store, most likely: what this connection has not been sent is safe, and it comes back for it.
            log.warning("connection's writer failed", conn=self.id, user=self.user_id, error=repr(error))
            self.close(CloseCode.GOING_AWAY, retry_reason())

    async def _drain(self) -> None:
        """Write the queue out, as fast as the peer takes it."""
        self._flush()
        while self._queue:
            await self.socket.drain()
            self._flush()

    def _flush(self) -> None:
        """Everything queued, in one write, if the peer takes data at all."""
        if not self._queue or not self.socket.can_write:
            return
        items = list(self._queue)
        self._forget_queue()
        self._room.set()
        self._write(items)

    def _write(self, items: Sequence[MessageBack | bytes]) -> None:
        frames: list[bytes] = []
        for item in items:
            if isinstance(item, bytes):
                frames.append(item)
            elif item.is_shown_to(self.user_id):
                frames.append(item.frame)
        if not self.socket.write_frames(frames):
            return
        self.counters.written += len(frames)
        traffic = self.journal.traffic
        traffic.written += len(frames)
        traffic.written_bytes += sum(map(len, frames))
        if not self.post_only:
            self._unconfirmed.extend(items)
            self._unconfirmed_bytes += sum(map(_size, items))
            self._confirm()

    def _confirm(self, look_again: float = 0.0) -> None:
        """Report what has left this process: the peer may never take what is still in the transport's buffer.

        A message is out when the buffer is no longer than what was written after it. Frame headers and pings are
        not counted in, which errs on the safe side.
        """
        unsent = self.socket.unsent
        while self._unconfirmed and unsent is not None:
            item = self._unconfirmed[0]
            behind_it = self._unconfirmed_bytes - _size(item)
            if unsent > behind_it:
                break
            self._unconfirmed.popleft()
            self._unconfirmed_bytes = behind_it
            if not isinstance(item, bytes):
                self.sent(self, item, self.pushed.advances(item))
        if self._look is None and self._unconfirmed and unsent is not None:
            # uvloop sends at the end of the loop's turn; after that it takes as long as the peer takes.
            self._look = asyncio.get_running_loop().call_later(look_again, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._confirm(_LOOK_AGAIN)

    # --- catching up

    async def _catch_up(self) -> None:
        """What the user has not been sent, oldest first; then, without a pause between, live."""
        positions = await self.backlog.positions(self.user_id)
        for key, sent_seq, _ in positions:
            self.pushed.start(key, sent_seq)
        behind: list[Behind] = []
        for key, sent_seq, last_seq in positions:
            end = min(last_seq, sent_seq + self.limits.resume)
            async for back in self._stored(key, sent_seq, end):
                await self._write_stored(back)
            if end < last_seq:
                behind.append(Behind(key, end, last_seq))
                self.pushed.leave_to_pull(key, end, last_seq)
        while await self._refill():
            pass
        self.pushed.is_live = True
        self._enqueue_caught_up(positions, behind)

    def _enqueue_caught_up(self, positions: Sequence[tuple[str, int, int]], behind: list[Behind]) -> None:
        frame = SystemFrame(
            content="caught up" if not behind else "caught up in part: pull the rest",
            event="caught_up",
            complete=not behind,
            behind=behind,
            positions={
                key: max(last_seq, self.pushed.last(key) or 0) for key, _, last_seq in positions[:_POSITIONS_MAX]
            },
        )
        self.offer_control(encode(frame))

    async def resync(self) -> None:
        """Look for what was passed by, as when this node could not be told for a while."""
        if self.post_only or self.closing is not None:
            return
        for key, _, last_seq in await self.backlog.positions(self.user_id):
            self.pushed.look_for(key, last_seq)
        self._wake.set()

    async def _refill(self) -> bool:
        """Bring one conversation that is behind up to what was last offered of it. False when none is."""
        waiting = self.pushed.next_behind()
        if waiting is None:
            return False
        key, last, target = waiting
        async for back in self._stored(key, last, target):
            await self._write_stored(back)
        self.pushed.caught_up(key, target)
        return True

    async def _stored(self, key: str, after_seq: int, end: int) -> AsyncIterator[MessageBack]:
        while after_seq < end:
            page = await self.backlog.page(key, after_seq, min(_PAGE, end - after_seq))
            for back in page:
                yield back
            if not page:
                return
            after_seq = page[-1].seq

    async def _write_stored(self, back: MessageBack) -> None:
        await self._drain()
        while not self.socket.can_write:
            await self.socket.drain()
        if self.pushed.take_stored(back.conversation, back.seq):
            self._write([back])


def _size(item: MessageBack | bytes) -> int:
    return len(item) if isinstance(item, bytes) else len(item.frame)
