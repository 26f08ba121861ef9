"""Consumer: what was accepted is stored, a batch in one transaction; then it is delivered, then its senders are told.

The same for every broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import structlog
from msgspec import Raw
from sqlalchemy.exc import IntegrityError

from kama.backoff import Backoff
from kama.errors import DatabaseFailed, KamaError
from kama.server.broker import MessageBroker, Record, Stored
from kama.server.cache import HistoryCache
from kama.server.delivery import Delivery, signal_frame
from kama.server.events import Journal
from kama.server.message_back import MessageBack
from kama.server.peers import Delivered, Event, Peers, Signalled
from kama.server.store.database import is_transient
from kama.server.store.messages import Batch, MessageStore

log = structlog.get_logger("kama.consumer")

_RETRY_FIRST = 0.05
_RETRY_MAX = 5.0
_YIELD_EVERY = 500

Outcome = Stored | KamaError


@dataclass(slots=True)
class ChatCounters:
    accepted: int = 0
    rate_limited: int = 0
    stored: int = 0
    duplicates: int = 0
    ephemeral: int = 0
    store_failures: int = 0
    not_stored: int = 0
    batches: int = 0
    largest_batch: int = 0
    batch_ms: float = 0.0  # how long the last transaction took


class Consumer:
    def __init__(
        self,
        broker: MessageBroker,
        store: MessageStore,
        delivery: Delivery,
        peers: Peers,
        cache: HistoryCache,
        journal: Journal,
    ) -> None:
        self._broker = broker
        self._store = store
        self._delivery = delivery
        self._peers = peers
        self._cache = cache
        self._journal = journal
        self.counters = ChatCounters()
        self.store_failing = False

    async def run(self) -> None:
        """Until the broker is closed, and has nothing more."""
        async for batch in self._broker.batches():
            self.counters.batches += 1
            self.counters.largest_batch = max(self.counters.largest_batch, len(batch))
            placed = await self._place([record for record in batch if not record.ephemeral])
            await self._hand_out(batch, iter(placed))

    # --- store

    async def _place(self, records: Sequence[Record]) -> Iterable[tuple[Outcome, MessageBack | None]]:
        """Stored or refused for good, however long it takes; one bad record does not hold up the others."""
        if not records:
            return ()
        try:
            batch = await self._insert(records)
        except Exception as error:
            if len(records) > 1:
                return [placed for record in records for placed in await self._place([record])]
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
        backoff = Backoff(_RETRY_FIRST, _RETRY_MAX)
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
                log.warning("batch not stored: trying again", size=len(records), error=repr(error), delay=backoff.delay)
            await asyncio.sleep(backoff.take())

    def _count(self, records: Sequence[Record], batch: Batch) -> None:
        placed = [(record.uuid, outcome) for record, outcome in zip(records, batch.outcomes, strict=True)]
        self._journal.stored(placed, self.counters.batch_ms)
        duplicates = sum([outcome.duplicate for outcome in batch.outcomes])
        self.counters.duplicates += duplicates
        self.counters.stored += len(records) - duplicates

    # --- deliver, and tell

    async def _hand_out(self, batch: Sequence[Record], placed: Iterator[tuple[Outcome, MessageBack | None]]) -> None:
        """`placed`: what became of those that are not ephemeral, in their order."""
        elsewhere: list[tuple[Collection[str], Event]] = []
        are_others = self._peers.are_there
        deliver_now = self._delivery.deliver_now
        for number, record in enumerate(batch, 1):
            try:
                if record.ephemeral:
                    self._signal(record, elsewhere)
                else:
                    outcome, back = next(placed)
                    if back is not None:
                        users = deliver_now(back)
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

    async def _deliver(self, back: MessageBack) -> Collection[str]:
        """While the members of its group cannot be read, everything waits for that: a later message must not
        overtake it. Gives whom it concerns."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MAX)
        while True:
            try:
                return await self._delivery.deliver(back)
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("message not delivered: trying again", uuid=back.uuid, error=repr(error))
            await asyncio.sleep(backoff.take())

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
