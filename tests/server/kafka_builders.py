"""Brokers over a real Kafka, on topics and in a group of one test's own, and a look at what Kafka has."""

from __future__ import annotations

import asyncio
import itertools
import struct
import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import ConsumerRecord
from server_builders import build_record

from kama.server.broker import Record
from kama.server.kafka_broker import KafkaBroker
from kama.settings import KafkaSettings

# Where the checksum of a record batch stands, over everything behind it.
_CHECKSUM = 17

_uuids = itertools.count(1_800_000_000_000 << 22)


class Kafka:
    """A corner of a real Kafka. `start` gives brokers that are ended with the test, `admin` is only for looking."""

    def __init__(self, servers: str, topic: str, admin: AIOKafkaAdminClient) -> None:
        self.servers = servers
        self.topic = topic
        self.admin = admin
        self._made: list[KafkaBroker] = []

    def settings(self, **values: Any) -> KafkaSettings:
        given = {"bootstrap_servers": self.servers, "topic": self.topic, "group": self.topic, "partitions": 1}
        return KafkaSettings.model_validate({**given, **values})

    def make(self, node: str = "n1", *, in_flight: int = 100, alone: bool = True, **values: Any) -> KafkaBroker:
        broker = KafkaBroker(self.settings(**values), node=node, in_flight=in_flight, alone=alone)
        self._made.append(broker)
        return broker

    async def start(self, node: str = "n1", **details: Any) -> KafkaBroker:
        broker = self.make(node, **details)
        await broker.start()
        return broker

    async def end(self) -> None:
        for broker in self._made:
            await broker.stop()
        mine = [name for name in await self.admin.list_topics() if name.startswith(self.topic)]
        if mine:
            await self.admin.delete_topics(mine)

    # --- what Kafka has

    async def topics(self) -> set[str]:
        return {name for name in await self.admin.list_topics() if name.startswith(self.topic)}

    async def partitions(self, topic: str) -> Mapping[int, int]:
        """How many copies each partition has."""
        (described,) = await self.admin.describe_topics([topic])
        return {each["partition"]: len(each["replicas"]) for each in described["partitions"]}

    async def committed(self, partition: int = 0) -> int | None:
        """The offset with which the group goes on."""
        offsets = await self.admin.list_consumer_group_offsets(self.topic)
        place = offsets.get(TopicPartition(self.topic, partition))
        return None if place is None or place.offset < 0 else place.offset

    async def post(self, value: bytes | None, **details: Any) -> None:
        """As a foreign producer does: without anything of ours."""
        async with AIOKafkaProducer(bootstrap_servers=self.servers, max_request_size=4 << 20) as producer:
            await producer.send_and_wait(self.topic, value, **details)

    async def post_unreadable(self, partition: int = 0, *, topic: str | None = None) -> None:
        """A record with a header whose name is not UTF-8: other clients write such a name, aiokafka cannot read it."""
        async with AIOKafkaProducer(bootstrap_servers=self.servers) as producer:
            batch = producer.create_batch()
            batch.append(key=None, value=b"{}", timestamp=None, headers=[("name", b"")])
            batch.close()
            packed = batch._build()
            packed[:] = packed.replace(b"name", b"\xff\xfe\xfd\xfc")
            struct.pack_into(">I", packed, _CHECKSUM, calc_crc32c(bytes(packed[_CHECKSUM + 4 :])))
            sent = await producer.send_batch(batch, topic or self.topic, partition=partition)
            await sent

    async def read(self, topic: str, count: int) -> list[ConsumerRecord[Any, Any]]:
        """The first that many records of a topic."""
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.servers, auto_offset_reset="earliest")
        async with consumer, asyncio.timeout(20):
            return [await consumer.getone() for _ in range(count)]


@asynccontextmanager
async def corner_of(servers: str) -> AsyncIterator[Kafka]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    corner = Kafka(servers, f"test_{uuid.uuid4().hex[:12]}", admin)
    try:
        yield corner
    finally:
        await corner.end()
        await admin.close()


def new_record(send_id: str = "U1", receive_id: str = "U2", **fields: Any) -> Record:
    """With an id as nodes give them, and no two alike."""
    return build_record(send_id, receive_id, uuid=next(_uuids), **fields)


def contents(records: Collection[Record]) -> list[str]:
    return [record.request.content for record in records]


async def take(batches: AsyncIterator[Sequence[Record]], count: int) -> list[Record]:
    """At least that many records, asking for one batch after the other; the last one stays in hand."""
    taken: list[Record] = []
    async with asyncio.timeout(30):
        while len(taken) < count:
            taken += await anext(batches)
    return taken
