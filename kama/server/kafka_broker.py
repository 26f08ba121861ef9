"""KafkaBroker: a topic between accepting and storing, one group that stores, and an inbox for each node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from aiokafka.errors import KafkaError

from kama.monitor_protocol import Partition
from kama.server.broker import Record
from kama.server.kafka.connection import KafkaConnection
from kama.server.kafka.dead_letters import DeadLetters
from kama.server.kafka.inbox import KafkaInbox
from kama.server.kafka.publisher import Publisher
from kama.server.kafka.shared_group import SharedGroup
from kama.server.kafka.topics import KafkaTopics, inbox_topic
from kama.settings import KafkaSettings

_CHECK = 2.0
_END = 5.0
# Times of others' records become ids and times of messages: those of Kafka, whatever clock the producer has.
_TIMED_BY_KAFKA = {"message.timestamp.type": "LogAppendTime"}


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
        connection = KafkaConnection(settings, node)
        self._topics = KafkaTopics(connection, settings.replication_factor)
        self._inbox = KafkaInbox(connection, self._topics, settings.topic, node)
        self._publisher = publisher = Publisher(connection, settings.topic, in_flight, produced)
        self._dead_letters = DeadLetters(f"{settings.topic}.dlq", lambda: publisher.producer, publisher.look_at)
        self._group = SharedGroup(connection, settings.topic, settings.group, self._dead_letters, alone=alone)
        self._closed = False

    @property
    def trouble(self) -> str:
        failure = self._group.failure
        return self._publisher.trouble or (f"cannot fetch from Kafka: {type(failure).__name__}" if failure else "")

    @property
    def partitions(self) -> Sequence[Partition]:
        return self._group.partitions

    @property
    def rebalances(self) -> int:
        return self._group.rebalances

    @property
    def depth(self) -> int:
        return self._publisher.in_flight + self._group.in_hand

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
        await self._group.make_sure_alone()
        await self._publisher.start()
        if not self._alone:
            await self._inbox.open()
        await self._group.join()

    async def close(self) -> None:
        self._closed = True
        self._group.close()
        await self._publisher.close(_END)

    async def stop(self) -> None:
        """Leave the group and end the connections, once nothing is consumed any more. Twice is harmless."""
        await self.close()
        await self._group.leave(_END)
        await self._publisher.stop(_END)
        await self._inbox.close(_END)

    async def check(self) -> None:
        """Raises KafkaError or TimeoutError unless a broker answers now, and what fetching fails with."""
        producer = self._publisher.producer
        if producer is None:
            raise KafkaError("not started")
        async with asyncio.timeout(_CHECK):
            if not await producer.client.force_metadata_update():
                raise KafkaError("no broker answers")
        if self._group.failure is not None:
            raise self._group.failure

    # --- messages

    def publish_now(self, record: Record) -> bool:
        """What Kafka takes is always waited for."""
        return False

    async def publish(self, record: Record, timeout: float) -> None:
        """Returns once the record is on its way. Its sender is told when Kafka has it, or at `timeout` that it has not.

        A sender that was told so and sends again must use the same client_msg_id: the first one may still arrive.
        """
        await self._publisher.publish(record, timeout)

    def batches(self) -> AsyncIterator[Sequence[Record]]:
        return self._group.batches()

    # --- from node to node

    async def forward(self, node: str, payload: bytes) -> None:
        await self._publisher.send(inbox_topic(self._settings.topic, node), payload)

    async def inbox(self) -> AsyncIterator[bytes]:
        while not self._closed and self._inbox.is_open:
            for payload in await self._inbox.fetch():
                yield payload

    async def sweep(self, nodes: Collection[str]) -> None:
        await self._inbox.sweep(nodes)
