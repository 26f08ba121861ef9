"""KafkaBroker against a real Kafka: topics, offsets, poison, shared partitions, inboxes and company."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from kafka_builders import Kafka, contents, corner_of, new_record, take
from server_builders import until

from kama.errors import CannotConnect, SettingsError, TooLarge
from kama.server.broker import Record
from kama.server.kafka import shared_group
from kama.server.kafka.dead_letters import REASON, SOURCE
from kama.server.kafka.topics import inbox_topic
from kama.server.kafka_broker import KafkaBroker
from kama.server.tasks import cancel, spawn

pytestmark = pytest.mark.kafka

GOOD = b'{"type":0,"send_id":"U1","receive_id":"U2","content":"good"}'


@pytest.fixture
async def kafka(kafka_servers: str) -> AsyncIterator[Kafka]:
    async with corner_of(kafka_servers) as corner:
        yield corner


async def until_true(condition: Callable[[], Awaitable[bool]], timeout: float = 20) -> None:
    """`until` for what has to be asked for."""
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.02)


class Consumer:
    """Takes all batches of a broker, and asks for the next one at once."""

    def __init__(self, broker: KafkaBroker) -> None:
        self.broker = broker
        self.records: list[Record] = []
        self._task = spawn(self._run(), name="consumer")

    async def _run(self) -> None:
        async for batch in self.broker.batches():
            self.records += batch

    @property
    def uuids(self) -> list[int]:
        return [record.uuid for record in self.records]

    async def leave(self) -> None:
        """As a node that ends in an orderly way."""
        await self.broker.close()
        await asyncio.wait_for(self._task, 20)
        await self.broker.stop()


def partitions_of(broker: KafkaBroker) -> set[int]:
    consumer = broker._group._consumer
    return set() if consumer is None else {place.partition for place in consumer.assignment()}


async def send(broker: KafkaBroker, count: int, *, users: int = 40) -> list[int]:
    """The ids of that many records, over as many conversations as there are users."""
    records = [new_record("U0", f"U{1 + number % users}") for number in range(count)]
    for record in records:
        await broker.publish(record, 10)
    await until(lambda: broker._publisher.in_flight == 0)
    return [record.uuid for record in records]


# --- topics


async def test_topics_that_are_not_there_are_created_as_the_settings_say(kafka: Kafka) -> None:
    await kafka.start(partitions=5)
    assert await kafka.topics() == {kafka.topic, f"{kafka.topic}.dlq"}
    assert await kafka.partitions(kafka.topic) == dict.fromkeys(range(5), 1)


async def test_a_topic_that_is_there_is_left_alone(kafka: Kafka) -> None:
    await kafka.admin.create_topics([NewTopic(kafka.topic, 2, 1)])
    await kafka.start(partitions=5)
    assert len(await kafka.partitions(kafka.topic)) == 2


async def test_more_copies_than_there_are_brokers_are_refused_with_the_topics_name(kafka: Kafka) -> None:
    broker = kafka.make(replication_factor=9)
    with pytest.raises(CannotConnect, match=f"cannot create the topic {kafka.topic}: .*9"):
        await broker.start()


async def test_a_node_with_others_has_an_inbox_and_takes_it_away_at_the_end(kafka: Kafka) -> None:
    broker = await kafka.start("host:8000", alone=False)
    assert f"{kafka.topic}.inbox.host_3a8000" in await kafka.topics()
    await broker.stop()
    assert await kafka.topics() == {kafka.topic, f"{kafka.topic}.dlq"}


# --- offsets


async def test_an_offset_is_committed_when_the_next_batch_is_asked_for_and_not_before(kafka: Kafka) -> None:
    broker = await kafka.start()
    batches = broker.batches()
    await send(broker, 3)
    await take(batches, 3)
    assert await kafka.committed() is None
    following = spawn(anext(batches), name="next batch")  # type: ignore[arg-type]

    async def is_committed() -> bool:
        return await kafka.committed() == 3

    await until_true(is_committed)
    await cancel(following)


async def test_what_was_in_hand_when_a_consumer_died_comes_again(kafka: Kafka) -> None:
    broker = await kafka.start()
    sent = await send(broker, 3)
    batches = broker.batches()
    assert len(await take(batches, 3)) == 3
    await batches.aclose()  # type: ignore[attr-defined]
    await broker.stop()
    again = await take((await kafka.start("n2")).batches(), 3)
    assert [record.uuid for record in again] == sent


async def test_what_was_committed_does_not_come_again(kafka: Kafka) -> None:
    first = Consumer(await kafka.start())
    await send(first.broker, 3)
    await until(lambda: len(first.records) == 3)
    await first.leave()
    broker = await kafka.start("n2")
    last = await send(broker, 1)
    assert [record.uuid for record in await take(broker.batches(), 1)] == last


# --- poison


async def test_poison_goes_to_the_dead_letters_and_the_partition_goes_on(kafka: Kafka) -> None:
    broker = await kafka.start()
    for value in (GOOD, b"nonsense", GOOD):
        await kafka.post(value, key=b"k", headers=[("trace", b"5")])
    assert contents(await take(broker.batches(), 2)) == ["good", "good"]
    assert broker.poisoned == 1
    (dead,) = await kafka.read(f"{kafka.topic}.dlq", 1)
    headers = dict(dead.headers)
    assert (dead.key, dead.value, headers["trace"]) == (b"k", b"nonsense", b"5")
    assert headers[REASON].startswith(b"expected one JSON object")
    assert headers[SOURCE] == f"{kafka.topic}/0/1".encode()


async def test_a_batch_of_nothing_but_poison_is_passed(kafka: Kafka) -> None:
    consumer = Consumer(await kafka.start())
    for _ in range(3):
        await kafka.post(b"nonsense", key=b"k")

    async def is_passed() -> bool:
        return await kafka.committed() == 3

    await until_true(is_passed)
    assert (consumer.records, consumer.broker.poisoned) == ([], 3)
    await consumer.leave()


@pytest.mark.parametrize(
    ("value", "details"),
    [
        pytest.param(None, {"key": b"k"}, id="a tombstone"),
        pytest.param(b"", {}, id="neither key nor value"),
        pytest.param(b"x" * 1_048_480, {}, id="as large as Kafka takes"),
        pytest.param(b"nonsense", {"headers": [("empty", None)]}, id="a header without a value"),
    ],
)
async def test_any_poison_lets_what_is_behind_it_pass(
    kafka: Kafka, value: bytes | None, details: dict[str, Any]
) -> None:
    broker = await kafka.start()
    await kafka.post(value, **details)
    await kafka.post(GOOD)
    assert contents(await take(broker.batches(), 1)) == ["good"]
    (dead,) = await kafka.read(f"{kafka.topic}.dlq", 1)
    assert dict(dead.headers)[SOURCE] == f"{kafka.topic}/0/0".encode()


async def test_a_record_that_the_library_cannot_read_is_a_dead_letter_that_names_its_place(kafka: Kafka) -> None:
    broker = await kafka.start()
    await kafka.post(GOOD)
    await kafka.post_unreadable()
    await kafka.post(GOOD)
    batches = broker.batches()
    assert contents(await take(batches, 2)) == ["good", "good"]
    assert broker.poisoned == 1
    (dead,) = await kafka.read(f"{kafka.topic}.dlq", 1)
    headers = dict(dead.headers)
    assert headers[SOURCE] == f"{kafka.topic}/0/1".encode()
    assert headers[REASON].startswith(b"cannot be read: UnicodeDecodeError")


async def test_unreadable_records_lose_nothing_in_any_partition(kafka: Kafka) -> None:
    """What was taken from the other partitions when the library gave up is read again."""
    await kafka.admin.create_topics([NewTopic(kafka.topic, 9, 1)])
    await kafka.post_unreadable(8)
    await kafka.post_unreadable(8)
    for number in range(36):
        await kafka.post(GOOD.replace(b"good", b"%d" % number), partition=number % 9)
    consumer = Consumer(await kafka.start())
    await until(lambda: sorted(map(int, set(contents(consumer.records)))) == list(range(36)), timeout=30)

    async def is_all_committed() -> bool:
        return sum([await kafka.committed(partition) or 0 for partition in range(9)]) == 36 + 2

    await until_true(is_all_committed)
    assert consumer.broker.poisoned == 2
    await consumer.broker.check()
    await consumer.leave()


async def test_unreadable_records_before_a_node_starts_are_passed_too(kafka: Kafka) -> None:
    await kafka.admin.create_topics([NewTopic(kafka.topic, 1, 1)])
    await kafka.post_unreadable()
    await kafka.post(GOOD)
    assert contents(await take((await kafka.start()).batches(), 1)) == ["good"]


async def test_whatever_a_fetch_raises_the_batches_go_on_and_the_check_tells(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await kafka.start()
    await broker.check()

    async def getmany(*_places: object, **_options: object) -> None:
        raise ZeroDivisionError("a fault of the library")

    with monkeypatch.context() as faulty:
        faulty.setattr(broker._group._consumer, "getmany", getmany)
        consumer = Consumer(broker)
        await until(lambda: broker._group.failure is not None)
        with pytest.raises(ZeroDivisionError):
            await broker.check()
    sent = await send(broker, 3)
    await until(lambda: consumer.uuids == sent)
    await broker.check()
    await consumer.leave()


# --- the time of a message


async def test_a_foreign_record_has_the_time_at_which_kafka_took_it(kafka: Kafka) -> None:
    """A producer whose clock runs ahead would push the ids of all that comes after."""
    broker = await kafka.start()
    now = time.time_ns() // 1_000_000
    await kafka.post(GOOD, timestamp_ms=now + 86_400_000)
    (record,) = await take(broker.batches(), 1)
    assert abs(record.accepted_ms - now) < 60_000


# --- a group


async def shared_out(*brokers: KafkaBroker, partitions: int) -> None:
    """Until each of the brokers has a share, and together they have all partitions."""

    def is_shared() -> bool:
        shares = [partitions_of(broker) for broker in brokers]
        return all(shares) and sorted(each for share in shares for each in share) == list(range(partitions))

    await until(is_shared, timeout=30)


@pytest.mark.heavy
async def test_two_nodes_share_the_partitions_and_a_leaving_ones_go_to_the_other(kafka: Kafka) -> None:
    one, two = [Consumer(await kafka.start(node, alone=False, partitions=4)) for node in ("n1", "n2")]
    await shared_out(one.broker, two.broker, partitions=4)
    sent = await send(one.broker, 80)
    await until(lambda: len(one.records) + len(two.records) == 80)
    assert sorted(one.uuids + two.uuids) == sent
    assert one.records and two.records
    later = spawn(send(two.broker, 80), name="sender")
    await one.leave()
    sent += await later
    await until(lambda: set(one.uuids + two.uuids) == set(sent), timeout=30)
    await shared_out(two.broker, partitions=4)
    assert len(one.uuids + two.uuids) == len(sent), "a node that leaves in order commits what it has"
    await two.leave()


async def held_up(kafka: Kafka) -> tuple[KafkaBroker, AsyncIterator[Sequence[Record]], list[Record]]:
    """A node with a batch in hand from each of its two partitions."""
    broker = await kafka.start("n1", alone=False, partitions=2)
    await shared_out(broker, partitions=2)
    batches = broker.batches()
    places = await asyncio.gather(*(send(broker, 4, users=4) for _ in range(5)))
    taken = await take(batches, sum(map(len, places)))
    return broker, batches, taken


@pytest.mark.heavy
async def test_a_node_finishes_its_batch_before_its_partitions_go(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, batches, taken = await held_up(kafka)
    asked_to_hand_over = asyncio.Event()

    async def hand_over(really: Callable[[], Awaitable[None]] = holder._group.hand_over) -> None:
        asked_to_hand_over.set()
        await really()

    monkeypatch.setattr(holder._group, "hand_over", hand_over)
    joining = spawn(kafka.start("n2", alone=False, partitions=2), name="newcomer")
    await asyncio.wait_for(asked_to_hand_over.wait(), 20)
    rest = spawn(anext(batches), name="next batch")  # type: ignore[arg-type]
    newcomer = await joining
    await shared_out(holder, newcomer, partitions=2)
    assert await kafka.committed(0) + await kafka.committed(1) == len(taken)  # type: ignore[operator]
    await cancel(rest)


@pytest.mark.heavy
async def test_who_lost_a_partition_does_not_commit_it(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_group, "_HAND_OVER", 0.1)
    holder, batches, taken = await held_up(kafka)
    newcomer = await kafka.start("n2", alone=False, partitions=2)
    await shared_out(holder, newcomer, partitions=2)
    (lost,) = partitions_of(newcomer)
    rest = spawn(anext(batches), name="next batch")  # type: ignore[arg-type]

    async def is_kept_committed() -> bool:
        return await kafka.committed(1 - lost) is not None

    await until_true(is_kept_committed)
    assert await kafka.committed(lost) is None
    again = await take(newcomer.batches(), 1)
    assert {record.uuid for record in again} < {record.uuid for record in taken}
    await cancel(rest)


# --- inboxes


async def two_with_inboxes(kafka: Kafka) -> list[KafkaBroker]:
    """Each in a group of its own: here they need not wait for each other's partitions."""
    return [await kafka.start(node, alone=False, group=f"{kafka.topic}.{node}") for node in ("n1", "n2")]


async def payloads(broker: KafkaBroker, count: int) -> list[bytes]:
    found: list[bytes] = []
    async with asyncio.timeout(20):
        async for payload in broker.inbox():
            found.append(payload)
            if len(found) == count:
                break
    return found


async def test_what_is_forwarded_comes_out_of_the_inbox_in_order(kafka: Kafka) -> None:
    one, two = await two_with_inboxes(kafka)
    sent = [b"%d" % number for number in range(20)]
    for payload in sent:
        await one.forward("n2", payload)
    await two.forward("n1", b"mine")
    assert await payloads(two, 20) == sent
    assert await payloads(one, 1) == [b"mine"]


async def test_the_inbox_of_an_earlier_life_is_not_read_again(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = await two_with_inboxes(kafka)
    await one.forward("n2", b"old")
    with monkeypatch.context() as killed:
        killed.setattr(two._topics, "delete", lambda names: asyncio.sleep(0))
        await two.stop()
    reborn = await kafka.start("n2", alone=False, group=f"{kafka.topic}.n2")
    await one.forward("n2", b"new")
    assert await payloads(reborn, 1) == [b"new"]


async def test_an_inbox_goes_on_past_what_nobody_can_read(kafka: Kafka) -> None:
    one, two = await two_with_inboxes(kafka)
    await one.forward("n2", b"before")
    await kafka.post_unreadable(topic=inbox_topic(kafka.topic, "n2"))
    await one.forward("n2", b"after")
    assert await payloads(two, 2) == [b"before", b"after"]


async def test_closing_ends_the_inbox(kafka: Kafka) -> None:
    broker = await kafka.start(alone=False)
    reading = spawn(payloads(broker, 1), name="inbox")
    await broker.close()
    assert await asyncio.wait_for(reading, 20) == []


async def test_what_is_too_large_to_forward_is_told_apart(kafka: Kafka) -> None:
    broker = await kafka.start(alone=False)
    with pytest.raises(TooLarge, match="larger than Kafka takes"):
        await broker.forward("n1", b"x" * (2 << 20))


async def test_a_sweep_deletes_the_inboxes_of_nodes_that_are_gone_twice_in_a_row(kafka: Kafka) -> None:
    broker = await kafka.start(alone=False)
    mine, gone, back = (f"{kafka.topic}.inbox.{node}" for node in ("n1", "gone", "back"))
    await kafka.admin.create_topics([NewTopic(gone, 1, 1), NewTopic(back, 1, 1)])
    await broker.sweep(["n1"])
    assert await kafka.topics() >= {mine, gone, back}, "its node may have lost its lease for a moment"
    await broker.sweep(["n1", "back"])
    await broker.sweep(["n1"])
    assert await kafka.topics() == {kafka.topic, f"{kafka.topic}.dlq", mine, back}


# --- company


@pytest.mark.parametrize("round", range(3))
async def test_of_two_that_start_without_redis_at_once_one_has_all_and_the_other_is_refused(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, round: int
) -> None:
    """Neither finds the other when it looks."""

    async def nobody_there(*_: object) -> None:
        pass

    monkeypatch.setattr(shared_group, "refuse_company", nobody_there)
    starts = [kafka.start(node, partitions=3) for node in ("n1", "n2")]
    (refused,) = [end for end in await asyncio.gather(*starts, return_exceptions=True) if isinstance(end, Exception)]
    assert isinstance(refused, SettingsError) and refused.field == "redis.url"
    shares = [partitions_of(broker) for broker in kafka._made]
    assert sorted(map(len, shares)) == [0, 3]


async def test_a_second_node_without_redis_is_refused(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await kafka.start()
    await until(lambda: partitions_of(first) == {0})
    monkeypatch.setattr(shared_group, "_SESSION_MS", 100)  # how long it waits for a node that was killed
    with pytest.raises(SettingsError) as error:
        await kafka.start("n2")
    assert (error.value.field, error.value.hint) == ("redis.url", "set redis.url (KAMA_REDIS__URL) for each of them")


async def test_a_node_alone_waits_for_the_one_before_it_to_be_gone(kafka: Kafka) -> None:
    first = await kafka.start()
    await until(lambda: partitions_of(first) == {0})
    starting = spawn(kafka.start("n2"), name="start")
    await until(lambda: len(kafka._made) == 2)
    assert not starting.done()
    await first.stop()
    second = await asyncio.wait_for(starting, 20)
    await until(lambda: partitions_of(second) == {0})
