"""KafkaBroker: accepted means acknowledged by Kafka (`acks=all`); stored means committed, and only then the offset.

One shared consumer group stores: each message is read by one node, and read again by another if that one ends before
its commit. A partition that is taken away meanwhile is committed only by whoever has it then.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    IllegalStateError,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.structs import ConsumerRecord

from kama.errors import Busy, CannotConnect, SettingsError, TooLarge
from kama.monitor_protocol import Partition
from kama.server.broker import Record, Stored
from kama.server.kafka_records import REASON, SOURCE, Place, Poison, decode_record, encode_record
from kama.server.tasks import cancel, spawn
from kama.settings import KafkaSettings

log = structlog.get_logger("kama.kafka")

_BATCH = 500
_POLL_MS = 250
_CHECK = 2.0
_SESSION_MS = 10_000
_RETRY = 0.5
_RETRY_MAX = 5.0
# A member that is told to give up partitions finishes its batch first, if that takes no longer than this.
_HAND_OVER = 5.0
_FORWARD = 5.0
_INBOX_RETENTION_MS = 600_000
_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9.-]")
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
        self._node = node
        self._client_id = f"kama-{node}"
        self._room = asyncio.Semaphore(in_flight)
        self._in_flight = 0
        self._in_hand = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._consumer: AIOKafkaConsumer | None = None
        self._inbox: AIOKafkaConsumer | None = None
        self._leftovers: set[str] = set()
        self._producer: AIOKafkaProducer | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._stored: dict[TopicPartition, int] = {}
        self.trouble = ""
        self.rebalances = 0
        self.poisoned = 0

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
    def dead_letter_topic(self) -> str:
        return f"{self._settings.topic}.dlq"

    # --- start and end

    async def start(self) -> None:
        """Raises CannotConnect when no broker answers."""
        topic = self._settings.topic
        await self.create_topic(topic, partitions=self._settings.partitions)
        await self.create_topic(self.dead_letter_topic, partitions=1)
        if self._alone:
            await self._refuse_company()
        self._producer = await self._started(self._new_producer())
        if not self._alone:
            await self._open_inbox()
        consumer = self.new_consumer(
            group_id=self._settings.group,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=600_000,
        )
        consumer.subscribe([topic], listener=_HandOver(self))
        self._consumer = await self._started(consumer)

    async def _open_inbox(self) -> None:
        """From its end: what was forwarded to an earlier life of this node is caught up from the store."""
        name = self._inbox_topic(self._node)
        await self.create_topic(name, partitions=1, config={"retention.ms": str(_INBOX_RETENTION_MS)})
        self._inbox = await self._started(self.new_consumer(auto_offset_reset="earliest"))
        place = TopicPartition(name, 0)
        self._inbox.assign([place])
        await self._inbox.seek_to_end(place)
        await self._inbox.position(place)

    def _inbox_topic(self, node: str) -> str:
        return f"{self._settings.topic}.inbox.{_NOT_IN_TOPICS.sub('_', node)}"

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
        consumer, self._consumer = self._consumer, None
        inbox, self._inbox = self._inbox, None
        producer, self._producer = self._producer, None
        for part in (consumer, inbox, producer):
            if part is not None:
                try:
                    async with asyncio.timeout(_HAND_OVER):
                        await part.stop()
                except (KafkaError, TimeoutError) as error:
                    log.warning("Kafka client did not end cleanly", error=repr(error))
        if inbox is not None:
            await self._delete_topics([self._inbox_topic(self._node)])

    def connection(self) -> dict[str, Any]:
        """What every client of the brokers is made with."""
        given = self._settings
        options: dict[str, Any] = {
            "bootstrap_servers": [server.strip() for server in given.bootstrap_servers.split(",")],
            "client_id": self._client_id,
            "security_protocol": given.security_protocol,
            "metadata_max_age_ms": 30_000,
        }
        if given.security_protocol.startswith("SASL"):
            password = given.sasl_password.get_secret_value() if given.sasl_password else ""
            options |= {
                "sasl_mechanism": given.sasl_mechanism,
                "sasl_plain_username": given.sasl_username,
                "sasl_plain_password": password,
            }
        if given.security_protocol.endswith("SSL"):
            try:
                options["ssl_context"] = ssl.create_default_context(cafile=given.ssl_cafile or None)
            except OSError as error:  # no such file, or no certificates in it
                raise SettingsError(f"cannot use {given.ssl_cafile}: {error}", field="kafka.ssl_cafile") from None
        return options

    def _new_producer(self) -> AIOKafkaProducer:
        compression = None if self._settings.compression == "none" else self._settings.compression
        return AIOKafkaProducer(
            acks="all", enable_idempotence=True, compression_type=compression, linger_ms=0, **self.connection()
        )

    def new_consumer(self, **options: Any) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(enable_auto_commit=False, **self.connection(), **options)

    async def _started(self, part: Any) -> Any:
        try:
            await part.start()
        except BaseException as error:
            await (part.close() if isinstance(part, AIOKafkaAdminClient) else part.stop())
            if isinstance(error, KafkaError | OSError):
                raise self._cannot_connect(error) from None
            raise
        return part

    def _cannot_connect(self, error: object) -> CannotConnect:
        servers = self._settings.bootstrap_servers
        return CannotConnect(
            f"no Kafka broker answers at {servers} (kafka.bootstrap_servers): {error}",
            hint="start one: scripts/services up kafka, or name another: KAMA_KAFKA__BOOTSTRAP_SERVERS",
        )

    async def create_topic(self, name: str, *, partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Unless it is there. Raises CannotConnect."""
        admin = await self._started(AIOKafkaAdminClient(**self.connection()))
        try:
            copies = self._settings.replication_factor
            answer = await admin.create_topics([NewTopic(name, partitions, copies, topic_configs=dict(config or {}))])
            for _, code, *message in answer.topic_errors:
                failure = for_code(code)
                if code and failure is not TopicAlreadyExistsError:
                    raise CannotConnect(f"cannot create the topic {name}: {(message or [failure.__name__])[0]}")
        except (KafkaError, OSError) as error:
            raise self._cannot_connect(error) from None
        finally:
            await admin.close()

    async def _refuse_company(self) -> None:
        """A node that was killed is a member until its session ends: wait that long. Raises SettingsError."""
        admin = await self._started(AIOKafkaAdminClient(**self.connection()))
        try:
            deadline = asyncio.get_running_loop().time() + 1.5 * _SESSION_MS / 1000
            while any(group[5] for answer in await self._describe(admin) for group in answer.groups):
                if asyncio.get_running_loop().time() > deadline:
                    raise SettingsError(
                        f"another node stores as the group {self._settings.group}, and nodes find each other in Redis",
                        field="redis.url",
                        hint="set redis.url (KAMA_REDIS__URL) for each of them",
                    )
                await asyncio.sleep(_RETRY)
        finally:
            await admin.close()

    async def _describe(self, admin: AIOKafkaAdminClient) -> Sequence[Any]:
        try:
            answers: Sequence[Any] = await admin.describe_consumer_groups([self._settings.group])
            return answers
        except KafkaError as error:  # the first ever: Kafka is still making what it keeps groups in
            log.debug("group cannot be described yet", error=repr(error))
            return []

    async def check(self) -> None:
        """Raises KafkaError or TimeoutError unless a broker answers now."""
        if self._producer is None:
            raise KafkaError("not started")
        async with asyncio.timeout(_CHECK):
            if not await self._producer.client.force_metadata_update():
                raise KafkaError("no broker answers")

    # --- from node to node

    async def forward(self, node: str, payload: bytes) -> None:
        if self._producer is None:
            raise KafkaError("not started")
        try:
            async with asyncio.timeout(_FORWARD):
                await self._producer.send_and_wait(self._inbox_topic(node), payload)
        except MessageSizeTooLargeError as error:
            raise TooLarge(f"larger than Kafka takes: {error}") from None

    async def inbox(self) -> AsyncIterator[bytes]:
        while not self._closed and self._inbox is not None:
            try:
                fetched = await self._inbox.getmany(timeout_ms=_POLL_MS)
            except KafkaError as error:
                log.warning("cannot fetch from this node's inbox: trying again", error=repr(error))
                await asyncio.sleep(_RETRY)
                continue
            for kept in fetched.values():
                for raw in kept:
                    yield raw.value

    async def sweep(self, nodes: Collection[str]) -> None:
        """Delete inboxes that no node has had for two sweeps: their nodes did not end cleanly."""
        prefix = self._inbox_topic("")
        alive = {self._inbox_topic(node) for node in nodes}
        try:
            admin = await self._started(AIOKafkaAdminClient(**self.connection()))
            try:
                orphans = {name for name in await admin.list_topics() if name.startswith(prefix)} - alive
            finally:
                await admin.close()
        except (CannotConnect, KafkaError) as error:
            log.warning("inboxes not swept", error=repr(error))
            return
        if forgotten := sorted(orphans & self._leftovers):
            log.info("deleting inboxes of nodes that are gone", topics=forgotten)
            await self._delete_topics(forgotten)
        self._leftovers = orphans

    async def _delete_topics(self, names: Sequence[str]) -> None:
        try:
            admin = await self._started(AIOKafkaAdminClient(**self.connection()))
            try:
                await admin.delete_topics(list(names))
            finally:
                await admin.close()
        except (CannotConnect, KafkaError) as error:
            log.warning("topics not deleted", topics=list(names), error=repr(error))

    # --- publish

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
            self.trouble = ""
            place = done.result()
            self._produced(record.uuid, place.topic, place.partition, place.offset)
            record.settled(Stored(record.uuid, record.key, 0))
        elif isinstance(error, MessageSizeTooLargeError):
            record.settled(TooLarge(f"the message is larger than Kafka takes: {error}"))
        else:
            self._look_at(error)
            record.settled(Busy("Kafka did not take the message: send it again with the same client_msg_id"))

    def _on_late(self, record: Record, timeout: float) -> None:
        self.trouble = f"Kafka has not acknowledged a message for {timeout:g} s"
        record.settled(_late(timeout))

    def _look_at(self, error: BaseException | None) -> None:
        """An idempotent producer that lost its place never finds it again: go on with a new one."""
        self.trouble = f"Kafka takes no messages: {type(error).__name__}"
        if isinstance(error, _BROKEN_PRODUCER) and (self._renewal is None or self._renewal.done()):
            log.warning("Kafka producer lost its place: making a new one", error=repr(error))
            self._renewal = spawn(self._renew_producer(), name="renew producer")

    async def _renew_producer(self) -> None:
        old, delay = self._producer, _RETRY
        while not self._closed:
            try:
                self._producer = await self._started(self._new_producer())
                break
            except CannotConnect:
                await asyncio.sleep(delay)
                delay = min(delay * 2, _RETRY_MAX)
        if old is not None:
            await old.stop()

    # --- consume

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        while not self._closed and self._consumer is not None:
            try:
                fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
            except KafkaError as error:
                log.warning("cannot fetch from Kafka: trying again", error=repr(error))
                await asyncio.sleep(_RETRY)
                continue
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

    async def _decode_all(self, fetched: Mapping[TopicPartition, list[ConsumerRecord[Any, Any]]]) -> list[Record]:
        records: list[Record] = []
        for kept in fetched.values():
            for raw in kept:
                place = Place(raw.topic, raw.partition, raw.offset, raw.timestamp)
                try:
                    records.append(decode_record(raw.value, raw.headers, place))
                except Poison as reason:
                    await self._bury(raw, place, str(reason))
        return records

    async def _bury(self, raw: ConsumerRecord[Any, Any], place: Place, reason: str) -> None:
        """To the dead-letter topic, with its reason, before anything behind it is committed."""
        self.poisoned += 1
        log.warning("record is no message: moved to the dead-letter topic", place=str(place), reason=reason)
        ours = [(REASON, reason.encode()), (SOURCE, str(place).encode())]
        # Kafka's clients refuse to send a record that has neither key nor value.
        key, value, headers = raw.key, raw.value or b"", [*raw.headers, *ours]
        while self._producer is not None:
            try:
                await self._producer.send_and_wait(self.dead_letter_topic, value, key=key, headers=headers)
                return
            except MessageSizeTooLargeError:
                log.warning("record is too large for the dead-letter topic: moved without its value", place=str(place))
                key, value, headers = None, b"", ours
            except KafkaError as error:
                self._look_at(error)
                log.warning("cannot reach the dead-letter topic: trying again", error=repr(error))
                await asyncio.sleep(_RETRY)

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
