"""What every broker promises, told once and held against each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from kafka_builders import contents, corner_of, new_record, take
from server_builders import until

from kama.errors import Busy, KamaError
from kama.server.broker import MessageBroker, Record, Stored
from kama.server.channel_broker import ChannelBroker
from kama.server.tasks import spawn

StartBroker = Callable[[], Awaitable[MessageBroker]]


@pytest.fixture(params=["channel", pytest.param("kafka", marks=pytest.mark.kafka)])
async def start_broker(request: pytest.FixtureRequest) -> AsyncIterator[StartBroker]:
    if request.param == "channel":

        async def start_channel() -> MessageBroker:
            broker = ChannelBroker(100)
            await broker.start()
            return broker

        yield start_channel
        return
    async with corner_of(request.getfixturevalue("kafka_servers")) as kafka:

        async def start_kafka() -> MessageBroker:
            return await kafka.start(partitions=3)

        yield start_kafka


@pytest.fixture
async def broker(start_broker: StartBroker) -> MessageBroker:
    return await start_broker()


async def test_what_is_published_comes_out_once_and_each_keys_in_order(broker: MessageBroker) -> None:
    sent = [new_record("U1", f"U{2 + number % 4}", content=str(number)) for number in range(40)]
    for record in sent:
        await broker.publish(record, 5)
    taken = await take(broker.batches(), len(sent))
    assert Counter(record.uuid for record in taken) == Counter(record.uuid for record in sent)
    for key in {record.key for record in sent}:
        assert contents([record for record in taken if record.key == key]) == contents(
            [record for record in sent if record.key == key]
        )


async def test_what_comes_out_is_what_went_in(broker: MessageBroker) -> None:
    sent = new_record(content="ü", client_msg_id="m1")
    await broker.publish(sent, 5)
    (taken,) = await take(broker.batches(), 1)
    assert (taken.key, taken.request, taken.uuid, taken.ephemeral) == (sent.key, sent.request, sent.uuid, False)


async def test_senders_at_the_same_time_lose_nothing(broker: MessageBroker) -> None:
    sent = [[new_record(f"U{sender}", "U9", content=str(number)) for number in range(10)] for sender in range(5)]

    async def send(records: Sequence[Record]) -> None:
        for record in records:
            await broker.publish(record, 5)

    senders = [spawn(send(records), name="sender") for records in sent]
    taken = await take(broker.batches(), 50)
    await asyncio.gather(*senders)
    assert len(taken) == 50
    for records in sent:
        assert contents([record for record in taken if record.key == records[0].key]) == contents(records)


async def test_depth_counts_a_batch_until_the_next_one_is_asked_for(broker: MessageBroker) -> None:
    assert broker.depth == 0
    batches = broker.batches()
    await broker.publish(new_record(), 5)
    await take(batches, 1)
    await until(lambda: broker.depth == 1)
    following = spawn(anext(batches), name="next batch")  # type: ignore[arg-type]
    await until(lambda: broker.depth == 0)
    await broker.publish(new_record(), 5)
    await asyncio.wait_for(following, 20)
    await until(lambda: broker.depth == 1)


async def test_batches_end_after_close(broker: MessageBroker) -> None:
    await broker.publish(new_record(), 5)
    ended = spawn(take_until_closed(broker), name="consumer")
    await until(lambda: broker.depth == 0, timeout=30)
    await broker.close()
    assert len(await asyncio.wait_for(ended, 20)) == 1


async def take_until_closed(broker: MessageBroker) -> list[Record]:
    return [record async for batch in broker.batches() for record in batch]


async def test_after_close_a_sender_is_told_busy(broker: MessageBroker) -> None:
    await broker.close()
    with pytest.raises(Busy, match="shutting down"):
        await broker.publish(new_record(), 5)


async def test_ends_are_harmless_in_any_number(broker: MessageBroker) -> None:
    for _ in range(2):
        await broker.close()
    for _ in range(2):
        await broker.stop()
    await broker.close()


async def test_a_broker_that_runs_answers_the_check(broker: MessageBroker) -> None:
    await broker.check()


async def test_a_sender_is_told_once_by_whoever_can_promise(broker: MessageBroker) -> None:
    """The channel keeps a message in memory: only the store can promise. Kafka has it when it says so."""
    told: list[tuple[int, object]] = []

    def settle(record: Record, outcome: Stored | KamaError) -> None:
        told.append((record.uuid, outcome))

    sent = [new_record() for _ in range(5)]
    for record in sent:
        record.settle = settle
        await broker.publish(record, 5)
    batches = broker.batches()
    taken = await take(batches, 5)
    if isinstance(broker, ChannelBroker):
        assert told == []
        assert [record.settle for record in taken] == [settle] * 5, "whoever stores it tells the sender"
    else:
        await until(lambda: len(told) == 5)
        assert told == [(record.uuid, Stored(record.uuid, record.key, 0)) for record in sent]
        assert [record.settle for record in taken] == [None] * 5, "its sender is told already"
    await broker.close()
    assert [batch async for batch in batches] == []
    assert len(told) in (0, 5)
