"""ChatServer: the life of a message between a frame and the sockets. Everything here is the same for every broker.

accept   a request is checked and published; the sender waits while there is no room
consume  a batch is stored in one transaction, then delivered, then its senders are told
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import structlog
from msgspec import Raw
from sqlalchemy.exc import IntegrityError

from kama.errors import Busy, DatabaseFailed, Forbidden, KamaError, NoSuchGroup, RateLimited
from kama.protocol import (
    BadFrame,
    ChatMessageRequest,
    MessageType,
    conversation_id,
    is_stored_signal,
)
from kama.server.auth import Identity
from kama.server.broker import MessageBroker, Record, Settle, Stored
from kama.server.cache import HistoryCache
from kama.server.delivery import Delivery, signal_frame
from kama.server.events import Journal
from kama.server.limits import TokenBuckets
from kama.server.membership import Membership
from kama.server.message_back import MessageBack
from kama.server.peers import Delivered, Event, Peers, Signalled
from kama.server.retries import Retries
from kama.server.snowflake import Snowflake, timestamp_ms
from kama.server.store.database import is_transient
from kama.server.store.messages import Batch, MessageStore
from kama.server.tasks import cancel, spawn
from kama.server.traffic import HighMark

log = structlog.get_logger("kama.chat")

_SIGNAL = int(MessageType.AUDIO_OR_VIDEO)
_RETRY_FIRST = 0.05
_RETRY_MAX = 5.0
_YIELD_EVERY = 500


@dataclass(slots=True)
class ChatCounters:
    accepted: int = 0
    stored: int = 0
    duplicates: int = 0
    ephemeral: int = 0
    rate_limited: int = 0
    store_failures: int = 0
    not_stored: int = 0
    batches: int = 0
    largest_batch: int = 0
    batch_ms: float = 0.0  # how long the last transaction took


class ChatServer:
    """`file_max_size` in characters, `publish_timeout` in seconds; `retries` where the broker itself acknowledges."""

    def __init__(
        self,
        broker: MessageBroker,
        store: MessageStore,
        delivery: Delivery,
        peers: Peers,
        membership: Membership,
        cache: HistoryCache,
        ids: Snowflake,
        buckets: TokenBuckets,
        retries: Retries | None = None,
        *,
        file_max_size: int,
        publish_timeout: float,
        journal: Journal | None = None,
    ) -> None:
        self._broker = broker
        self._store = store
        self._delivery = delivery
        self._peers = peers
        self._membership = membership
        self._cache = cache
        self._ids = ids
        self._buckets = buckets
        self._retries = retries
        self._file_max_size = file_max_size
        self._publish_timeout = publish_timeout
        self._journal = journal or Journal()
        self._consumer: asyncio.Task[None] | None = None
        self.mark = HighMark()
        self.counters = ChatCounters()
        self.store_failing = False

    async def start(self) -> None:
        self._consumer = spawn(self._consume(), name="consumer")

    async def close(self, timeout: float) -> None:
        """Take nothing more; store and deliver what was taken, for at most `timeout` seconds.

        What is not stored by then was never acknowledged.
        """
        await self._broker.close()
        if self._consumer is not None:
            await asyncio.wait([self._consumer], timeout=timeout)
            await cancel(self._consumer)

    @property
    def depth(self) -> int:
        """Messages accepted and not yet stored."""
        return self._broker.depth

    @property
    def waiting(self) -> int:
        """Messages in the transmit queue."""
        return self._broker.waiting

    @property
    def is_consuming(self) -> bool:
        return self._consumer is not None and not self._consumer.done()

    # --- accept

    async def accept(
        self, request: ChatMessageRequest, sender: Identity, settle: Settle, connection: str = ""
    ) -> Record:
        """Check a message and publish it. `settle` is told what became of it, unless this raises.

        `connection`: the id of the one it came from.

        Raises BadFrame, Forbidden, NoSuchGroup, RateLimited, and Busy when there was no room in time.
        """
        ephemeral = self._check(request, sender)
        self._take_token(sender.user_id)
        if request.receive_id[0] == "G":
            self._check_member(request, await self._membership.members(request.receive_id))
        record = _record(request, await self._uuid(request), ephemeral, settle)
        await self._broker.publish(record, self._publish_timeout)
        self._note_accepted(record, connection)
        return record

    def accept_now(self, request: ChatMessageRequest, sender: Identity, settle: Settle, connection: str = "") -> bool:
        """`accept`, when nothing has to be waited for. False: nothing was done, `accept` it. Raises the same."""
        if self._retries is not None and request.client_msg_id is not None:
            return False
        ephemeral = self._check(request, sender)
        if request.receive_id[0] == "G":
            members = self._membership.known(request.receive_id)
            if members is None:
                return False
            self._take_token(sender.user_id)
            self._check_member(request, members)
        else:
            self._take_token(sender.user_id)
        record = _record(request, self._ids.next(), ephemeral, settle)
        if not self._broker.publish_now(record):
            self._buckets.give_back(sender.user_id)
            return False
        self._note_accepted(record, connection)
        return True

    def _note_accepted(self, record: Record, connection: str) -> None:
        self.counters.accepted += 1
        self.mark.see(self._broker.waiting)
        request = record.request
        size = len(request.content) + len(request.av_data)
        self._journal.accepted(
            record.uuid, record.key, request.send_id, request.receive_id, request.type, size, connection
        )

    def _take_token(self, user_id: str) -> None:
        wait = self._buckets.take(user_id)
        if wait > 0:
            self.counters.rate_limited += 1
            raise RateLimited("more messages than limits.messages_per_second and limits.burst", retry_after=wait)

    async def _uuid(self, request: ChatMessageRequest) -> int:
        """A new id, or for a retry the one of the first try."""
        if self._retries is None or request.client_msg_id is None:
            return self._ids.next()
        key = (request.send_id, request.client_msg_id)
        uuid = await self._retries.find(key) or self._ids.next()
        self._retries.remember(key, uuid)
        return uuid

    def _check(self, request: ChatMessageRequest, sender: Identity) -> bool:
        """Whether it is ephemeral: a call signal that is not stored."""
        if request.send_id != sender.user_id and not sender.may_act_for(request.send_id):
            raise Forbidden(f"expected send_id {sender.user_id}, got {request.send_id}", field="send_id")
        size = len(request.content) + len(request.av_data)
        if size > self._file_max_size:
            raise BadFrame(
                f"expected at most {self._file_max_size} characters of content and av_data, got {size}",
                field="content" if request.content else "av_data",
            )
        return request.type == _SIGNAL and not is_stored_signal(request)

    def _check_member(self, request: ChatMessageRequest, members: Collection[str] | None) -> None:
        if members is None:
            raise NoSuchGroup(f"there is no group {request.receive_id}", field="receive_id")
        if request.send_id not in members:
            raise Forbidden(f"{request.send_id} is not a member of {request.receive_id}", field="receive_id")

    # --- consume

    async def _consume(self) -> None:
        async for batch in self._broker.batches():
            self.counters.batches += 1
            self.counters.largest_batch = max(self.counters.largest_batch, len(batch))
            kept = [record for record in batch if not record.ephemeral]
            placed = iter(await self._store_all(kept))
            elsewhere: list[tuple[Collection[str], Event]] = []
            are_others = self._peers.are_there
            for number, record in enumerate(batch, 1):
                try:
                    if record.ephemeral:
                        self._signal(record, elsewhere)
                    else:
                        outcome, back = next(placed)
                        if back is not None:
                            users = self._delivery.deliver_now(back)
                            if users is None:
                                users = await self._deliver(back)
                            if are_others:
                                elsewhere.append((users, Delivered(back.conversation, Raw(back.frame))))
                        record.settled(outcome)
                except Exception as error:
                    # A fault of ours with one message: it is stored, and must not stop those behind it.
                    log.error("message not handed out", uuid=record.uuid, exc_info=error)
                if number % _YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            if elsewhere:
                await self._peers.tell(elsewhere)

    def _signal(self, record: Record, elsewhere: list[tuple[Collection[str], Event]]) -> None:
        """A call signal that nobody stores: to its receiver, here or on another node."""
        self.counters.ephemeral += 1
        reached = self._delivery.deliver_ephemeral(record)
        record.settled(Stored(record.uuid, record.key, 0))
        receiver = record.request.receive_id
        if self._peers.are_there:
            elsewhere.append(((receiver,), Signalled(receiver, Raw(signal_frame(record)))))
        elif not reached:
            self._journal.undeliverable(record.uuid, receiver)

    async def _store_all(self, records: Sequence[Record]) -> Iterable[tuple[Stored | KamaError, MessageBack | None]]:
        """Stored or refused for good, however long it takes; one bad record does not hold up the others."""
        if not records:
            return ()
        try:
            batch = await self._insert(records)
        except Exception as error:
            if len(records) > 1:
                return [placed for record in records for placed in await self._store_all([record])]
            self.counters.not_stored += 1
            log.error("message cannot be stored", uuid=records[0].uuid, error=type(error).__name__)
            self._journal.not_stored(records[0].uuid, records[0].key, type(error).__name__)
            return [(DatabaseFailed("the message cannot be stored: it was dropped, and nobody got it"), None)]
        self._count(records, batch)
        for key, messages in batch.fresh.items():
            self._cache.submit(key, batch.versions[key], messages=messages)
        return zip(batch.outcomes, batch.backs, strict=True)

    async def _insert(self, records: Sequence[Record]) -> Batch:
        """Raises what trying again does not mend."""
        delay = _RETRY_FIRST
        collided = False
        while True:
            started = time.perf_counter()
            try:
                batch = await self._store.insert_batch(records)
                self.counters.batch_ms = round((time.perf_counter() - started) * 1000, 2)
                self.store_failing = False
                return batch
            except IntegrityError:
                # Another node stored the same message between our look and our insert: the next look finds it.
                if collided:
                    raise
                collided = True
                continue
            except Exception as error:
                if not is_transient(error):
                    raise
                self.counters.store_failures += 1
                self.store_failing = True
                log.warning("batch not stored: trying again", size=len(records), error=repr(error), delay=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MAX)

    def _count(self, records: Sequence[Record], batch: Batch) -> None:
        count, took_ms = len(records), self.counters.batch_ms
        duplicates = 0
        for record, outcome in zip(records, batch.outcomes, strict=True):
            duplicates += outcome.duplicate
            text = "duplicate" if outcome.duplicate else ""
            self._journal.stored(record.uuid, outcome.conversation, outcome.seq, count, took_ms, text)
        self.counters.duplicates += duplicates
        self.counters.stored += count - duplicates

    async def _deliver(self, back: MessageBack) -> Collection[str]:
        """While the members of its group cannot be read, everything waits for that: a later message must not
        overtake it. Gives whom it concerns."""
        delay = _RETRY_FIRST
        while True:
            try:
                return await self._delivery.deliver(back)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("message not delivered: trying again", uuid=back.uuid, error=repr(error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MAX)

    async def accept_and_wait(self, request: ChatMessageRequest, sender: Identity) -> Stored:
        """For a caller without a connection: accept, and wait until the message is stored.

        Raises what `accept` raises, what the store refuses, and Busy when it takes too long.
        """
        future: asyncio.Future[Stored | KamaError] = asyncio.get_running_loop().create_future()

        def settle(_record: Record, outcome: Stored | KamaError) -> None:
            if not future.done():
                future.set_result(outcome)

        await self.accept(request, sender, settle)
        try:
            async with asyncio.timeout(self._publish_timeout):
                outcome = await future
        except TimeoutError:
            raise Busy("the store does not answer: send it again with the same client_msg_id") from None
        if isinstance(outcome, KamaError):
            raise outcome
        return outcome


def _record(request: ChatMessageRequest, uuid: int, ephemeral: bool, settle: Settle) -> Record:
    key = conversation_id(request.send_id, request.receive_id)
    return Record(key, request, uuid, timestamp_ms(uuid), ephemeral, settle)
