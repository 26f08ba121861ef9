"""UserConn: one connection of one user. It is called with what comes in, and has no task while nothing is waited for.

Inbound waits: while a message finds no room, the socket is held and then not read. Outbound never waits: `offer` puts
a frame into a bounded send-back queue, which goes out at the end of the loop's turn, and a peer that lets it run full
leaves with 4008 and is caught up when it returns. Each conversation reaches a connection in seq order, each seq once
(see `pushed`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from kama.errors import CloseCode, KamaError
from kama.protocol import SIGNAL, AckFrame, encode, error_frame
from kama.server.auth import Identity
from kama.server.broker import Record, Stored
from kama.server.catch_up import Backlog, CatchUp, log_in_at_once
from kama.server.events import Journal
from kama.server.message_back import MessageBack
from kama.server.pushed import Pushed
from kama.server.send_queue import ConnLimits, Item, SendQueue, size_of
from kama.server.tasks import spawn
from kama.server.transport.ws_frame import text_frame
from kama.server.unconfirmed import Unconfirmed
from kama.server.websocket import Socket, retry_reason
from kama.server.write_turn import WriteTurn

log = structlog.get_logger("kama.gateway")

OnFrame = Callable[["UserConn", bytes], Coroutine[Any, Any, None] | None]
"""Takes one message of a client. What it gives is what has to be waited for before the next one."""


class TokenEnd(Protocol):
    """What ends a connection together with its token."""

    def schedule(self) -> None: ...

    def cancel(self) -> None: ...


@dataclass(slots=True)
class ConnCounters:
    received: int = 0
    written: int = 0
    dropped: int = 0
    refused: int = 0
    error: str = ""  # what it was last refused


@dataclass(eq=False, slots=True)
class UserConn:
    """Made by the login handler, started by Sessions. `sent(user_id, message, up_to, id)` is told of each message that
    left this process; `up_to`: and so did everything of its conversation up to this seq (0: not what came before it).
    `closed` is told once, by whoever ends it first. `turn` is the node's."""

    id: str
    identity: Identity
    socket: Socket
    welcome: bytes
    backlog: Backlog
    limits: ConnLimits
    sent: Callable[[str, MessageBack, int, str], None]
    closed: Callable[[UserConn], None]
    device: str = ""
    address: str = ""
    post_only: bool = False
    since: float = field(default_factory=time.time)
    last: float = 0.0  # when it last sent a frame, in Unix seconds
    journal: Journal = field(default_factory=Journal)
    turn: WriteTurn = field(default_factory=WriteTurn)
    closing: tuple[int, str] | None = None
    counters: ConnCounters = field(default_factory=ConnCounters)
    pushed: Pushed = field(default_factory=Pushed)
    queue: SendQueue = field(init=False)
    expiry: TokenEnd | None = None
    _handle: OnFrame | None = None  # once it has started
    _has_turn: bool = False
    _unconfirmed: Unconfirmed | None = None  # while the transport holds something
    _catch_up: CatchUp | None = None
    _filling: asyncio.Task[None] | None = None
    _moved: asyncio.Event | None = None  # made by who waits for the queue

    def __post_init__(self) -> None:
        self.queue = SendQueue(self.limits, self.journal.traffic)

    @property
    def leaves_with_its_task(self) -> bool:
        return False

    @property
    def user_id(self) -> str:
        return self.identity.user_id

    @property
    def depth(self) -> int:
        """Frames in the send-back queue."""
        return len(self.queue.items)

    # --- from its start to its end

    def start(self, on_frame: OnFrame) -> None:
        """Welcome the client, catch it up, and give what it says to `on_frame`. It is registered by now."""
        if self.closing is not None:
            return
        self._handle = on_frame
        made = text_frame(self.welcome)
        if not self.post_only and not self.pushed.is_live:
            caught_up = log_in_at_once(self.backlog, self.pushed, self.user_id)
            if caught_up is None:
                self._fill()
            else:
                frame = text_frame(encode(caught_up))
                self._note_written(1, len(frame))
                made += frame
        self.socket.write_made(made)
        self.write_out()
        self.socket.listen(self)

    def close(self, code: int, reason: str = "") -> None:
        """End the connection with this close code. The first call decides; it never waits.

        What is queued goes out first if the peer takes it; what it does not take stays unsent.
        """
        if self.closing is not None:
            return
        self._flush()
        self.closing = (code, reason)
        self.queue.take()
        self.socket.close_now(code, reason)
        self._has_moved()
        if self._filling is not None:
            self._filling.cancel()
        self.closed(self)

    def _fail(self, error: Exception) -> None:
        log.error("connection failed", conn=self.id, user=self.user_id, exc_info=error)
        self.close(CloseCode.INTERNAL_ERROR, "the node failed on this connection: its log says why")

    # --- what its socket calls

    def on_frame(self, data: bytes) -> None:
        if self.closing is not None or self._handle is None:
            return
        self.counters.received += 1
        self.last = time.time()
        self.journal.traffic.received += 1
        try:
            waits = self._handle(self, data)
        except Exception as error:
            self._fail(error)
            return
        if waits is not None:
            self.socket.hold()
            spawn(self._wait_for(waits), name=f"frame of {self.id}")

    async def _wait_for(self, waits: Coroutine[Any, Any, None]) -> None:
        try:
            await waits
        except Exception as error:
            self._fail(error)
        finally:
            self.socket.release()

    def on_writable(self) -> None:
        self.write_out()
        self._has_moved()

    def on_end(self) -> None:
        self.close(*(self.socket.ended or (CloseCode.NORMAL, "")))

    # --- what others give to it, never waiting

    def offer(self, back: MessageBack) -> None:
        """A stored message, live."""
        if self.closing is not None:
            return
        if self.post_only:
            if back.send_id == self.user_id:
                self._enqueue(back, len(back.frame))
        elif self.pushed.take_live(back.conversation, back.seq):
            if self.queue.items or self._unconfirmed is not None or not self._write_at_once(back):
                self._enqueue(back, len(back.frame))
        elif self.pushed.is_behind:
            self._fill()
            if self._catch_up is not None:
                self._catch_up.keep(back)

    def _write_at_once(self, back: MessageBack) -> bool:
        """The first of a turn of the loop needs no queue; what comes after it in the same turn gathers. So does an echo
        that an ack will follow, and a call signal that its sender may not be shown."""
        user_id, socket = self.identity.user_id, self.socket
        if user_id == back.send_id and (back.has_client_id or back.type == SIGNAL):
            return False
        if not socket.can_write or not self.turn.is_first(self):
            return False
        unsent = socket.write_made(back.made)
        if unsent is None:
            return False
        self._note_written(1, len(back.made))
        if unsent:
            self._report_later((back,))
        else:
            pushed = self.pushed
            self.sent(user_id, back, pushed.written(back) if pushed.gaps else back.seq, self.id)
        return True

    def offer_control(self, frame: bytes) -> None:
        """An ack, an error, a status: small, and nobody else will tell."""
        if self.closing is None:
            self._enqueue(frame, len(frame))

    def offer_ephemeral(self, frame: bytes) -> bool:
        """A call signal: the first to be dropped, from half full on. False when it was."""
        if self.closing is not None or self.post_only:
            return False
        if self.queue.is_half_full:
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

    async def push(self, item: Item) -> None:
        """For answers to this client itself: wait until the queue is half empty, then enqueue."""
        while self.closing is None and self.queue.is_half_full:
            await self._until_moved()
        if self.closing is None:
            self._enqueue(item, size_of(item))

    def _enqueue(self, item: Item, size: int) -> None:
        if not self.queue.has_room(size):
            # A burst may come before the loop's turn is over: only a peer that does not read is slow.
            self._flush()
            if not self.queue.has_room(size):
                self._drop("send-back queue full")
                self.close(CloseCode.SLOW_CONSUMER, "send-back queue full")
                return
        self.queue.add(item, size)
        if not self._has_turn:
            self._has_turn = True
            self.turn.add(self)

    def _drop(self, why: str) -> None:
        self.counters.dropped += 1
        self.journal.traffic.dropped += 1
        self.journal.dropped(self.user_id, self.id, why)

    async def _until_moved(self) -> None:
        if self._moved is None:
            self._moved = asyncio.Event()
        await self._moved.wait()

    def _has_moved(self) -> None:
        """The queue was written out, the peer takes data again, or the connection is closed."""
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    # --- writing

    def write_out(self) -> None:
        """Its turn: what has gathered goes out."""
        self._has_turn = False
        try:
            self._flush()
        except Exception as error:
            self._fail(error)

    def _flush(self) -> bool:
        """Everything queued, in one write, if the peer takes data at all. Whether it does."""
        if self._handle is None or not self.socket.can_write:
            return False
        if self.queue.items:
            self._write(self.queue.take())
            if self._moved is not None:
                self._has_moved()
        return True

    def _write(self, items: Sequence[Item]) -> None:
        user_id = self.identity.user_id
        made: list[bytes] = []
        for item in items:
            if isinstance(item, bytes):
                made.append(text_frame(item))
            elif item.is_shown_to(user_id):
                made.append(item.made)
        count = len(made)
        if count:
            frames = made[0] if count == 1 else b"".join(made)
            unsent = self.socket.write_made(frames)
            if unsent is None:
                return
            self._note_written(count, len(frames))
        else:
            unsent = self.socket.unsent
        if self.post_only:
            return
        if self._unconfirmed is None and unsent == 0:
            self._report(items)
        else:
            self._report_later(items)

    def _note_written(self, count: int, size: int) -> None:
        self.counters.written += count
        traffic = self.journal.traffic
        traffic.written += count
        traffic.written_bytes += size

    def _report(self, items: Sequence[Item]) -> None:
        user_id, sent, written = self.identity.user_id, self.sent, self.pushed.written
        for item in items:
            if not isinstance(item, bytes):
                sent(user_id, item, written(item), self.id)

    def _report_later(self, items: Sequence[Item]) -> None:
        if self._unconfirmed is None:
            self._unconfirmed = Unconfirmed(self.user_id, self.socket, self._report_one, self._all_confirmed)
        self._unconfirmed.add(items)

    def _report_one(self, back: MessageBack) -> None:
        self.sent(self.user_id, back, self.pushed.written(back), self.id)

    def _all_confirmed(self) -> None:
        self._unconfirmed = None

    # --- what it is given from the store

    def _fill(self) -> None:
        if self._filling is None and self._handle is not None:
            limits = self.limits
            self._catch_up = CatchUp(
                self.backlog, self.pushed, self._write_stored, messages=limits.messages, size=limits.bytes
            )
            self._filling = spawn(self._fill_from_store(self._catch_up), name=f"catch-up of {self.id}")

    async def _fill_from_store(self, catch_up: CatchUp) -> None:
        try:
            if not self.pushed.is_live:
                self.offer_control(encode(await catch_up.log_in(self.user_id, self.limits.resume)))
            await catch_up.refill(self.user_id)
        except Exception as error:
            # The store, most likely: what this connection has not been sent is safe, and it comes back for it.
            log.warning("connection not caught up", conn=self.id, user=self.user_id, error=repr(error))
            self.close(CloseCode.GOING_AWAY, retry_reason())
        finally:
            self._filling = self._catch_up = None

    async def _write_stored(self, back: MessageBack) -> None:
        while not self._flush():
            await self._until_moved()
        if self.pushed.take_stored(back.conversation, back.seq):
            self._write([back])

    async def resync(self) -> None:
        """Look for what was passed by, as when this node could not be told for a while."""
        if self.post_only or self.closing is not None:
            return
        for key, sent_seq, last_seq in await self.backlog.positions(self.user_id):
            self.pushed.look_for(key, sent_seq, last_seq)
        if self.pushed.is_behind and self.closing is None:
            self._fill()
