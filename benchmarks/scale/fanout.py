"""A group's message on the way to other nodes: the real directory and Peers, before a transport that only counts;
then the real transport by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from msgspec import Raw

from benchmarks.scale.announced import announced, long_lives, of_node, user_ids
from benchmarks.scale.places import Places, RedisMeter, new_name
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.table import Table, median, p99
from kama.protocol import ChatMessageRequest, build_message
from kama.server.broker import Record
from kama.server.channel_broker import ChannelBroker
from kama.server.delivery import Delivery
from kama.server.kafka.topics import inbox_topic
from kama.server.kafka_broker import KafkaBroker
from kama.server.membership import Membership
from kama.server.message_back import MessageBack, message_back
from kama.server.peers import Delivered, Peers
from kama.server.registry import ClientRegistry
from kama.settings import KafkaSettings

_GROUP = "G1"
_CONTENT = "x" * 200
_INBOX_BATCHES = (1, 50)


class CountingBroker(ChannelBroker):
    """Takes what is forwarded and keeps none of it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.records = 0
        self.bytes = 0

    async def forward(self, node: str, payload: bytes) -> None:
        self.records += 1
        self.bytes += len(payload)


async def measure(places: Places, sizes: Sizes) -> list[Table]:
    fanout = Table(
        f"A group's message of {len(_CONTENT)} bytes: what the storing node does to tell the other nodes",
        ("members", "nodes", "messages/batch", "inbox records/message", "KiB/message", "node us/message",
         "Redis us/message"),
    )  # fmt: skip
    for nodes in sizes.spread:
        async with places.empty_redis() as client:
            with long_lives():
                users = user_ids(max(sizes.members))
                for number in range(nodes):
                    async with announced(places.redis, number, of_node(users, number, nodes)) as node:
                        await node._renew()
                async with announced(places.redis, 0) as storing:
                    for members in sizes.members:
                        for batch in _INBOX_BATCHES:
                            row = await _tell(storing, RedisMeter(client), users[:members], batch, sizes.tells)
                            fanout.add(members, nodes, batch, *row)
    return [fanout, await _scans(sizes), *await _transport(places, sizes)]


async def _tell(directory: Any, meter: RedisMeter, users: Sequence[str], batch: int, count: int) -> Sequence[float]:
    """Per message: inbox records, KiB, this node's CPU and Redis' in microseconds."""
    broker, members = CountingBroker(), frozenset(users)
    registry = ClientRegistry(1, 1, "allow")
    membership = _membership(members)
    peers = Peers(directory, broker, registry, Delivery(registry, membership), membership)
    events = [(members, Delivered(_GROUP, Raw(_back(users[0], seq).frame))) for seq in range(1, batch + 1)]
    await peers.tell(events)
    broker.records = broker.bytes = 0
    await meter.start()
    began = time.process_time()
    for _ in range(count):
        await peers.tell(events)
    cpu = time.process_time() - began
    redis_us = (await meter.read())[0]
    messages = count * batch
    return broker.records / messages, broker.bytes / messages / 1024, cpu / messages * 1e6, redis_us / messages


def _membership(members: frozenset[str]) -> Membership:
    async def load(group_id: str) -> frozenset[str]:
        return members

    return Membership(load)


def _back(sender: str, seq: int) -> MessageBack:
    request = ChatMessageRequest(type=0, content=_CONTENT, send_id=sender, receive_id=_GROUP, client_msg_id=f"m{seq}")
    return message_back(_GROUP, build_message(request, seq, seq, 1_800_000_000_000 + seq), live=True)


async def _scans(sizes: Sizes) -> Table:
    """Every node that is told goes through all members, however few of them it has."""
    table = Table("A group's message at a node that was told and has none of its members", ("members", "node us"))
    registry = ClientRegistry(1, 1, "allow")
    for members in sizes.members:
        delivery = Delivery(registry, _membership(frozenset(user_ids(members))))
        back = _back("U1", 1)
        await delivery.deliver(back)
        began = time.process_time()
        for _ in range(100):
            await delivery.deliver(back)
        table.add(members, (time.process_time() - began) / 100 * 1e6)
    return table


# --- the real transport --------------------------------------------------------------------------------


async def _transport(places: Places, sizes: Sizes) -> list[Table]:
    hops = Table(
        "Kafka, one record at a time",
        ("what", "p50 ms", "p99 ms", "node us", "Kafka us"),
    )
    sweeps = Table("The sweep of inboxes, each node every 60 s", ("inboxes", "ms", "node ms", "Kafka ms"))
    topic = new_name("scale")
    broker = KafkaBroker(
        KafkaSettings(bootstrap_servers=places.kafka, topic=topic, group=new_name("scale"), partitions=1),
        node="here",
        in_flight=100,
        alone=False,
    )
    try:
        await broker.start()
        inbox, batches = broker.inbox(), broker.batches()
        hops.add("forward to an inbox", *await _hop(places, sizes, lambda: broker.forward("here", b"x" * 600)))
        await _drain(inbox, sizes.forwards)
        hops.add("forward, and read there", *await _hop(places, sizes, lambda: _round_trip(broker, inbox)))
        hops.add("publish, and read as a batch", *await _hop(places, sizes, lambda: _publish(broker, batches)))
        made = 0
        for count in sizes.inboxes:
            for number in range(made, count):
                await broker._topics.create(inbox_topic(topic, f"n{number}"), partitions=1, config={})
            made = count
            alive = ["here", *(f"n{number}" for number in range(count))]
            sweeps.add(count, *await _sweep(places, broker, alive))
        await broker.sweep(["here"])
        await broker.sweep(["here"])
    finally:
        await broker.stop()
    return [hops, sweeps]


async def _hop(places: Places, sizes: Sizes, act: Any) -> Sequence[float]:
    """Milliseconds of wall time (p50, p99), microseconds of this process and of Kafka."""
    await act()
    times: list[float] = []
    cpu, kafka = time.process_time(), places.cpu_seconds()["kafka"]
    for _ in range(sizes.forwards):
        began = time.perf_counter()
        await act()
        times.append((time.perf_counter() - began) * 1e3)
    node_us = (time.process_time() - cpu) / sizes.forwards * 1e6
    kafka_us = (places.cpu_seconds()["kafka"] - kafka) / sizes.forwards * 1e6
    return median(times), p99(times), node_us, kafka_us


async def _drain(inbox: AsyncIterator[bytes], count: int) -> None:
    for _ in range(count + 1):
        await anext(inbox)


async def _round_trip(broker: KafkaBroker, inbox: AsyncIterator[bytes]) -> None:
    await broker.forward("here", b"x" * 600)
    await anext(inbox)


async def _publish(broker: KafkaBroker, batches: AsyncIterator[Collection[Record]]) -> None:
    request = ChatMessageRequest(type=0, content=_CONTENT, send_id="U1", receive_id="U2")
    await broker.publish(Record("U1_U2", request, time.time_ns() >> 8, time.time_ns() // 1_000_000), 5.0)
    async with asyncio.timeout(60):
        await anext(batches)


async def _sweep(places: Places, broker: KafkaBroker, alive: Collection[str]) -> Sequence[float]:
    cpu, kafka, began = time.process_time(), places.cpu_seconds()["kafka"], time.perf_counter()
    for _ in range(5):
        await broker.sweep(alive)
    took = (time.perf_counter() - began) / 5 * 1e3
    return took, (time.process_time() - cpu) / 5 * 1e3, (places.cpu_seconds()["kafka"] - kafka) / 5 * 1e3
