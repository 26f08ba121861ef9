"""KafkaInbox: a topic of each node's own, into which the others put what concerns its connections."""

from __future__ import annotations

from collections.abc import Collection

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from kama.errors import CannotConnect
from kama.server.kafka.connection import KafkaConnection
from kama.server.kafka.fetch import Fetcher, Unreadable
from kama.server.kafka.topics import KafkaTopics, inbox_prefix, inbox_topic

log = structlog.get_logger("kama.kafka")

_MOST = 500
_RETENTION_MS = 600_000


class KafkaInbox:
    """`topic` is that of the messages: nodes that share it reach each other."""

    def __init__(self, connection: KafkaConnection, topics: KafkaTopics, topic: str, node: str) -> None:
        self._connection = connection
        self._topics = topics
        self._topic = topic
        self._name = inbox_topic(topic, node)
        self._consumer: AIOKafkaConsumer | None = None
        self._fetcher: Fetcher | None = None
        self._leftovers: set[str] = set()

    async def open(self) -> None:
        """From its end: what was forwarded to an earlier life of this node is caught up from the store.

        Raises CannotConnect.
        """
        await self._topics.create(self._name, partitions=1, config={"retention.ms": str(_RETENTION_MS)})
        consumer = self._connection.consumer(auto_offset_reset="earliest")
        await self._connection.started(consumer)
        self._consumer = consumer
        place = TopicPartition(self._name, 0)
        consumer.assign([place])
        await consumer.seek_to_end(place)
        await consumer.position(place)
        self._fetcher = Fetcher(consumer, has_group=False)

    @property
    def is_open(self) -> bool:
        return self._fetcher is not None

    async def fetch(self) -> list[bytes]:
        """What other nodes forwarded since, in the order of each of them; nothing after a moment without any."""
        payloads: list[bytes] = []
        for kept in (await self._fetcher.fetch(_MOST)).values() if self._fetcher is not None else ():
            for raw in kept:
                if isinstance(raw, Unreadable):
                    log.warning("passing over a record in this node's inbox", offset=raw.offset, reason=raw.reason)
                else:
                    payloads.append(raw.value or b"")
        return payloads

    async def sweep(self, nodes: Collection[str]) -> None:
        """Delete inboxes that no node has had for two sweeps: their nodes did not end cleanly."""
        prefix = inbox_prefix(self._topic)
        alive = {inbox_topic(self._topic, node) for node in nodes}
        try:
            orphans = {name for name in await self._topics.names() if name.startswith(prefix)} - alive
        except CannotConnect as error:
            log.warning("inboxes not swept", error=repr(error))
            return
        if forgotten := sorted(orphans & self._leftovers):
            log.info("deleting inboxes of nodes that are gone", topics=forgotten)
            await self._topics.delete(forgotten)
        self._leftovers = orphans

    async def close(self, timeout: float) -> None:
        """Delete the topic; within `timeout` seconds for the connection to end. Twice is harmless."""
        self._fetcher = None
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        await self._connection.ended(consumer, timeout)
        await self._topics.delete([self._name])
