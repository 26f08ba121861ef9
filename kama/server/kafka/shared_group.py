"""SharedGroup: the consumer group that all nodes store as. Stored means committed, and only then the offset.

Each message is read by one node, and read again by another if that one ends before its commit. A partition that is
taken away meanwhile is committed only by whoever has it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from kama.monitor_protocol import Partition
from kama.server.broker import Record
from kama.server.kafka.company import all_to_one, company, refuse_company
from kama.server.kafka.connection import KafkaConnection
from kama.server.kafka.dead_letters import DeadLetters
from kama.server.kafka.fetch import Fetched, Fetcher, Unreadable
from kama.server.kafka.records import Place, Poison, decode_record

log = structlog.get_logger("kama.kafka")

_BATCH = 500
_SESSION_MS = 10_000
# A member that is told to give up partitions finishes its batch first, if that takes no longer than this.
_HAND_OVER = 5.0


class SharedGroup:
    """This node's membership. `alone`: no other node may store beside it. `in_hand` records are not committed yet."""

    def __init__(
        self, connection: KafkaConnection, topic: str, group: str, dead_letters: DeadLetters, *, alone: bool
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._group = group
        self._dead_letters = dead_letters
        self._alone = alone
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._consumer: AIOKafkaConsumer | None = None
        self._fetcher: Fetcher | None = None
        self._stored: dict[TopicPartition, int] = {}
        self.in_hand = 0
        self.rebalances = 0

    @property
    def failure(self) -> Exception | None:
        """What fetching fails with now."""
        return self._fetcher.failure if self._fetcher is not None else None

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

    async def make_sure_alone(self) -> None:
        """Where it is to be. Raises SettingsError and CannotConnect."""
        if self._alone:
            await refuse_company(self._connection, self._group, 1.5 * _SESSION_MS / 1000)

    async def join(self) -> None:
        """Raises CannotConnect, and SettingsError when it is not alone but should be."""
        sharing = {"partition_assignment_strategy": [all_to_one()]} if self._alone else {}
        consumer = self._connection.consumer(
            group_id=self._group,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=600_000,
            **sharing,
        )
        consumer.subscribe([self._topic], listener=_HandOver(self))
        await self._connection.started(consumer)
        self._consumer = consumer
        self._fetcher = Fetcher(consumer, has_group=True)
        if self._alone and not consumer.assignment():
            raise company(self._group)

    def close(self) -> None:
        """No batch after the one in hand."""
        self._closed = True

    async def leave(self, timeout: float) -> None:
        """Once nothing is consumed any more. Twice is harmless."""
        consumer, self._consumer, self._fetcher = self._consumer, None, None
        if consumer is not None:
            await self._connection.ended(consumer, timeout)

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
                self.in_hand = len(records)
                if records:
                    yield records
                await self._commit({place: kept[-1].offset + 1 for place, kept in fetched.items()})
            finally:
                self.in_hand = 0
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


class _HandOver(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, group: SharedGroup) -> None:
        self._group = group

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:
            await self._group.hand_over()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._group.take_over(assigned)
