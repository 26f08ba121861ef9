"""KafkaBroker: accepted means acknowledged by Kafka (`acks=all`); stored means committed, and only then the offset.

One shared consumer group stores: each message is read by one node, and read again by another if that one ends before
its commit. A partition that is taken away meanwhile is committed only by whoever has it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)

from kama.errors import Busy, CannotConnect, TooLarge
from kama.monitor_protocol import Partition
from kama.server.broker import Record, Stored
from kama.server.kafka_company import all_to_one, company, refuse_company
from kama.server.kafka_connection import KafkaConnection
from kama.server.kafka_dead_letters import DeadLetters
from kama.server.kafka_fetch import Fetched, Fetcher, Unreadable
from kama.server.kafka_inbox import KafkaInbox
from kama.server.kafka_records import Place, Poison, decode_record, encode_record
from kama.server.kafka_topics import KafkaTopics, inbox_topic
from kama.server.tasks import cancel, spawn
from kama.settings import KafkaSettings

log = structlog.get_logger("kama.kafka")

_BATCH = 500
_CHECK = 2.0
_SESSION_MS = 10_000
_RETRY = 0.5
_RETRY_MAX = 5.0
# A member that is told to give up partitions finishes its batch first, if that takes no longer than this.
_HAND_OVER = 5.0
_FORWARD = 5.0
# Times of others' records become ids and times of messages: those of Kafka, whatever clock the producer has.
_TIMED_BY_KAFKA = {"message.timestamp.type": "LogAppendTime"}
_BROKEN_PRODUCER = (OutOfOrderSequenceNumber, InvalidProducerEpoch, ProducerFenced)


class KafkaBroker:
    """`in_flight` bounds the messages that Kafka has not acknowledged yet; `node` names this node's inbox.

    `alone`: no other node may store beside it. `produced(uuid, topic, partition, offset)` is told what Kafka has.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        node: str,
        in_flight: int,
        alone: bool,
        produced: Callable[[int, str, int, int], None] = lambda uuid, topic, partition, offset: None,
    ) -> None:
        self._settings = settings
        self._alone = alone
        self._produced = produced
        self._connection = KafkaConnection(settings, node)
        self._topics = KafkaTopics(self._connection, settings.replication_factor)
        self._inbox = KafkaInbox(self._connection, self._topics, settings.topic, node)
        self._room = asyncio.Semaphore(in_flight)
        self._in_flight = 0
        self._in_hand = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._consumer: AIOKafkaConsumer | None = None
        self._fetcher: Fetcher | None = None
        self._producer: AIOKafkaProducer | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._dead_letters = DeadLetters(f"{settings.topic}.dlq", lambda: self._producer, self._look_at)
        self._stored: dict[TopicPartition, int] = {}
        self._trouble = ""
        self.rebalances = 0

    @property
    def trouble(self) -> str:
        failure = self._fetcher.failure if self._fetcher is not None else None
        return self._trouble or (f"cannot fetch from Kafka: {type(failure).__name__}" if failure is not None else "")

    @property
    def partitions(self) -> Sequence[Partition]:
        if self._consumer is None:
            return ()
        held: list[Partition] = []
        for place in sorted(self._consumer.assignment()):
            end = self._consumer.highwater(place) or 0
            position = self._stored.get(place, end)
            held.append(Partition(partition=place.partition, position=position, lag=max(0, end - position)))
        return held

    @property
    def depth(self) -> int:
        return self._in_flight + self._in_hand

    @property
    def waiting(self) -> int:
        return self.depth

    @property
    def poisoned(self) -> int:
        """Records that were no messages."""
        return self._dead_letters.count

    # --- start and end

    async def start(self) -> None:
        """Raises CannotConnect when no broker answers, and SettingsError when it is not alone but should be."""
        settings = self._settings
        await self._topics.create(settings.topic, partitions=settings.partitions, config=_TIMED_BY_KAFKA)
        await self._topics.create(self._dead_letters.topic, partitions=1, config={})
        if self._alone:
            await refuse_company(self._connection, settings.group, 1.5 * _SESSION_MS / 1000)
        self._producer = await self._connection.started_producer()
        if not self._alone:
            await self._inbox.open()
        await self._join()

    async def _join(self) -> None:
        sharing = {"partition_assignment_strategy": [all_to_one()]} if self._alone else {}
        consumer = self._connection.consumer(
            group_id=self._settings.group,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=600_000,
            **sharing,
        )
        consumer.subscribe([self._settings.topic], listener=_HandOver(self))
        await self._connection.started(consumer)
        self._consumer = consumer
        self._fetcher = Fetcher(consumer, has_group=True)
        if self._alone and not consumer.assignment():
            raise company(self._settings.group)

    async def close(self) -> None:
        self._closed = True
        if self._producer is not None and self._in_flight:
            try:
                async with asyncio.timeout(_HAND_OVER):
                    await self._producer.flush()
            except TimeoutError:
                log.warning("messages not acknowledged by Kafka at the end", count=self._in_flight)

    async def stop(self) -> None:
        """Leave the group and end the connections, once nothing is consumed any more. Twice is harmless."""
        await self.close()
        await cancel(self._renewal)
        consumer, self._consumer, self._fetcher = self._consumer, None, None
        producer, self._producer = self._producer, None
        for client in (consumer, producer):
            if client is not None:
                await self._connection.ended(client, _HAND_OVER)
        await self._inbox.close(_HAND_OVER)

    async def check(self) -> None:
        """Raises KafkaError or TimeoutError unless a broker answers now, and what fetching fails with."""
        if self._producer is None:
            raise KafkaError("not started")
        async with asyncio.timeout(_CHECK):
            if not await self._producer.client.force_metadata_update():
                raise KafkaError("no broker answers")
        if self._fetcher is not None and self._fetcher.failure is not None:
            raise self._fetcher.failure

    # --- from node to node

    async def forward(self, node: str, payload: bytes) -> None:
        if self._producer is None:
            raise KafkaError("not started")
        try:
            async with asyncio.timeout(_FORWARD):
                await self._producer.send_and_wait(inbox_topic(self._settings.topic, node), payload)
        except MessageSizeTooLargeError as error:
            raise TooLarge(f"larger than Kafka takes: {error}") from None

    async def inbox(self) -> AsyncIterator[bytes]:
        while not self._closed and self._inbox.is_open:
            for payload in await self._inbox.fetch():
                yield payload

    async def sweep(self, nodes: Collection[str]) -> None:
        await self._inbox.sweep(nodes)

    # --- publish

    def publish_now(self, record: Record) -> bool:
        """What Kafka takes is always waited for."""
        return False

    async def publish(self, record: Record, timeout: float) -> None:
        """Returns once the record is on its way. Its sender is told when Kafka has it, or at `timeout` that it has not.

        A sender that was told so and sends again must use the same client_msg_id: the first one may still arrive.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                await self._room.acquire()
        except TimeoutError:
            raise Busy(f"Kafka has acknowledged nothing for {timeout:g} s: try again later") from None
        try:
            future = await self._send(record, deadline)
        except BaseException:
            self._room.release()
            raise
        self._in_flight += 1
        late = loop.call_at(deadline, self._on_late, record, timeout)
        future.add_done_callback(lambda done: self._on_sent(record, done, late))

    async def _send(self, record: Record, deadline: float) -> asyncio.Future[Any]:
        if self._closed or self._producer is None:
            raise Busy("the node is shutting down: send it again to a running node")
        key, value, headers = encode_record(record)
        try:
            async with asyncio.timeout_at(deadline):
                future: asyncio.Future[Any] = await self._producer.send(
                    self._settings.topic, value, key=key, headers=headers
                )
                return future
        except MessageSizeTooLargeError as error:
            raise TooLarge(f"the message is larger than Kafka takes: {error}") from None
        except (TimeoutError, KafkaError) as error:
            self._look_at(error)
            raise Busy("Kafka takes no messages: try again later") from None

    def _on_sent(self, record: Record, done: asyncio.Future[Any], late: asyncio.TimerHandle) -> None:
        late.cancel()
        self._room.release()
        self._in_flight -= 1
        error = KafkaError("cancelled") if done.cancelled() else done.exception()
        if error is None:
            self._trouble = ""
            place = done.result()
            self._produced(record.uuid, place.topic, place.partition, place.offset)
            record.settled(Stored(record.uuid, record.key, 0))
        elif isinstance(error, MessageSizeTooLargeError):
            record.settled(TooLarge(f"the message is larger than Kafka takes: {error}"))
        else:
            self._look_at(error)
            record.settled(Busy("Kafka did not take the message: send it again with the same client_msg_id"))

    def _on_late(self, record: Record, timeout: float) -> None:
        self._trouble = f"Kafka has not acknowledged a message for {timeout:g} s"
        record.settled(_late(timeout))

    def _look_at(self, error: BaseException | None) -> None:
        """An idempotent producer that lost its place never finds it again: go on with a new one."""
        self._trouble = f"Kafka takes no messages: {type(error).__name__}"
        if isinstance(error, _BROKEN_PRODUCER) and (self._renewal is None or self._renewal.done()):
            log.warning("Kafka producer lost its place: making a new one", error=repr(error))
            self._renewal = spawn(self._renew_producer(), name="renew producer")

    async def _renew_producer(self) -> None:
        old, delay = self._producer, _RETRY
        while not self._closed:
            try:
                self._producer = await self._connection.started_producer()
                break
            except CannotConnect:
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_MAX)
        if old is not None:
            await old.stop()

    # --- consume

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        while not self._closed and self._fetcher is not None:
            fetched = await self._fetcher.fetch(_BATCH)
            if not fetched:
                continue
            self._idle.clear()
            try:
                for place, kept in fetched.items():
                    self._stored.setdefault(place, kept[0].offset)
                records = await self._decode_all(fetched)
                self._in_hand = len(records)
                if records:
                    yield records
                await self._commit({place: kept[-1].offset + 1 for place, kept in fetched.items()})
            finally:
                self._in_hand = 0
                self._idle.set()

    async def _decode_all(self, fetched: Fetched) -> list[Record]:
        records: list[Record] = []
        for (topic, partition), kept in fetched.items():
            for raw in kept:
                if isinstance(raw, Unreadable):
                    await self._dead_letters.put(None, f"{topic}/{partition}/{raw.offset}", raw.reason)
                    continue
                place = Place(topic, partition, raw.offset, raw.timestamp)
                try:
                    records.append(decode_record(raw.value, raw.headers, place))
                except Poison as reason:
                    await self._dead_letters.put(raw, str(place), str(reason))
        return records

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Only what is ours still: somebody else has the rest, and reads it again, and finds it stored."""
        if self._consumer is None:
            return
        self._stored.update(offsets)
        ours = {place: offset for place, offset in offsets.items() if place in self._consumer.assignment()}
        if not ours:
            return
        try:
            await self._consumer.commit(ours)
        except (KafkaError, IllegalStateError) as error:
            log.warning("offsets not committed: what they cover is read again", error=repr(error))

    def take_over(self, assigned: Collection[TopicPartition]) -> None:
        """These are this node's now; another may have stored of them meanwhile."""
        self.rebalances += 1
        self._stored.clear()
        log.info("partitions assigned", partitions=sorted(place.partition for place in assigned))

    async def hand_over(self) -> None:
        """Before partitions go: finish the batch in hand, if that does not take too long."""
        try:
            async with asyncio.timeout(_HAND_OVER):
                await self._idle.wait()
        except TimeoutError:
            log.warning("partitions are taken away with a batch in hand: another node reads it again")


def _late(timeout: float) -> Busy:
    return Busy(f"Kafka has not acknowledged the message for {timeout:g} s: send it again with the same client_msg_id")


class _HandOver(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, broker: KafkaBroker) -> None:
        self._broker = broker

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:
            await self._broker.hand_over()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._broker.take_over(assigned)
