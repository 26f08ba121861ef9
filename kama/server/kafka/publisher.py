"""Publisher: what Kafka is given, and when it has it. Accepted means acknowledged by Kafka (`acks=all`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)

from kama.backoff import Backoff
from kama.errors import Busy, CannotConnect, TooLarge
from kama.server.broker import Record, Stored
from kama.server.kafka.connection import KafkaConnection
from kama.server.kafka.records import encode_record
from kama.server.tasks import cancel, spawn

log = structlog.get_logger("kama.kafka")

_RETRY_FIRST = 0.5
_RETRY_MAX = 5.0
_FORWARD = 5.0
_BROKEN_PRODUCER = (OutOfOrderSequenceNumber, InvalidProducerEpoch, ProducerFenced)


class Publisher:
    """Records go to `topic`; `most` of them may be in flight, without Kafka's acknowledgement.

    `produced(uuid, topic, partition, offset)` is told what Kafka has. `trouble`: why it takes
    nothing, while it does not.
    """

    def __init__(
        self, connection: KafkaConnection, topic: str, most: int, produced: Callable[[int, str, int, int], None]
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._produced = produced
        self._room = asyncio.Semaphore(most)
        self._closed = False
        self._renewal: asyncio.Task[None] | None = None
        self.producer: AIOKafkaProducer | None = None
        self.in_flight = 0
        self.trouble = ""

    async def start(self) -> None:
        """Raises CannotConnect when no broker answers."""
        self.producer = await self._connection.started_producer()

    async def close(self, timeout: float) -> None:
        """Take nothing more, and wait for what is in flight, for at most so many seconds."""
        self._closed = True
        if self.producer is not None and self.in_flight:
            try:
                async with asyncio.timeout(timeout):
                    await self.producer.flush()
            except TimeoutError:
                log.warning("messages not acknowledged by Kafka at the end", count=self.in_flight)

    async def stop(self, timeout: float) -> None:
        """After `close`. Twice is harmless."""
        await cancel(self._renewal)
        producer, self.producer = self.producer, None
        if producer is not None:
            await self._connection.ended(producer, timeout)

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
        self.in_flight += 1
        late = loop.call_at(deadline, self._on_late, record, timeout)
        future.add_done_callback(lambda done: self._on_sent(record, done, late))

    async def _send(self, record: Record, deadline: float) -> asyncio.Future[Any]:
        if self._closed or self.producer is None:
            raise Busy("the node is shutting down: send it again to a running node")
        key, value, headers = encode_record(record)
        try:
            async with asyncio.timeout_at(deadline):
                future: asyncio.Future[Any] = await self.producer.send(self._topic, value, key=key, headers=headers)
                return future
        except MessageSizeTooLargeError as error:
            raise TooLarge(f"the message is larger than Kafka takes: {error}") from None
        except (TimeoutError, KafkaError) as error:
            self.look_at(error)
            raise Busy("Kafka takes no messages: try again later") from None

    def _on_sent(self, record: Record, done: asyncio.Future[Any], late: asyncio.TimerHandle) -> None:
        late.cancel()
        self._room.release()
        self.in_flight -= 1
        error = KafkaError("cancelled") if done.cancelled() else done.exception()
        if error is None:
            self.trouble = ""
            place = done.result()
            self._produced(record.uuid, place.topic, place.partition, place.offset)
            record.settled(Stored(record.uuid, record.key, 0))
        elif isinstance(error, MessageSizeTooLargeError):
            record.settled(TooLarge(f"the message is larger than Kafka takes: {error}"))
        else:
            self.look_at(error)
            record.settled(Busy("Kafka did not take the message: send it again with the same client_msg_id"))

    def _on_late(self, record: Record, timeout: float) -> None:
        self.trouble = f"Kafka has not acknowledged a message for {timeout:g} s"
        record.settled(
            Busy(f"Kafka has not acknowledged the message for {timeout:g} s: send it again with the same client_msg_id")
        )

    async def send(self, topic: str, payload: bytes) -> None:
        """To another node. Raises KafkaError, TimeoutError and TooLarge."""
        if self.producer is None:
            raise KafkaError("not started")
        try:
            async with asyncio.timeout(_FORWARD):
                await self.producer.send_and_wait(topic, payload)
        except MessageSizeTooLargeError as error:
            raise TooLarge(f"larger than Kafka takes: {error}") from None

    def look_at(self, error: BaseException | None) -> None:
        """An idempotent producer that lost its place never finds it again: go on with a new one."""
        self.trouble = f"Kafka takes no messages: {type(error).__name__}"
        if isinstance(error, _BROKEN_PRODUCER) and (self._renewal is None or self._renewal.done()):
            log.warning("Kafka producer lost its place: making a new one", error=repr(error))
            self._renewal = spawn(self._renew_producer(), name="renew producer")

    async def _renew_producer(self) -> None:
        old, backoff = self.producer, Backoff(_RETRY_FIRST, _RETRY_MAX)
        while not self._closed:
            try:
                self.producer = await self._connection.started_producer()
                break
            except CannotConnect:
                await asyncio.sleep(backoff.take())
        if old is not None:
            await old.stop()
