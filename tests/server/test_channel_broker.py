"""ChannelBroker: a bounded queue that keeps the order, serves waiters in turn and hands over all it took."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_builders import build_record, until

from kama.errors import Busy
from kama.server.broker import Record
from kama.server.channel_broker import ChannelBroker
from kama.server.tasks import cancel, spawn


async def collect(broker: ChannelBroker, into: list[Sequence[Record]]) -> None:
    async for batch in broker.batches():
        into.append(batch)


async def test_what_gathered_comes_as_one_batch_in_order() -> None:
    """KamaChat defect 32: one message at a time."""
    broker = ChannelBroker(10)
    records = [build_record() for _ in range(5)]
    for record in records:
        await broker.publish(record, 1)
    assert await anext(broker.batches()) == records


async def test_the_next_batch_gathers_while_one_is_in_hand() -> None:
    broker = ChannelBroker(10)
    batches = broker.batches()
    await broker.publish(first := build_record(), 1)
    assert await anext(batches) == [first]
    later = [build_record(), build_record()]
    for record in later:
        await broker.publish(record, 1)
    assert await anext(batches) == later


async def test_a_consumer_that_waits_is_woken() -> None:
    broker = ChannelBroker(10)
    batches: list[Sequence[Record]] = []
    consumer = spawn(collect(broker, batches), name="consumer")
    await asyncio.sleep(0)
    await broker.publish(record := build_record(), 1)
    await until(lambda: batches == [[record]])
    await cancel(consumer)


async def test_depth_counts_what_is_queued_and_what_is_in_hand() -> None:
    broker = ChannelBroker(10)
    batches = broker.batches()
    await broker.publish(build_record(), 1)
    assert broker.depth == 1
    await anext(batches)
    await broker.publish(build_record(), 1)
    assert broker.depth == 2
    await anext(batches)
    assert broker.depth == 1


async def test_a_full_queue_is_busy_after_the_time_out() -> None:
    broker = ChannelBroker(1)
    await broker.publish(build_record(), 0.01)
    with pytest.raises(Busy, match=r"full for 0\.01 s"):
        await broker.publish(build_record(), 0.01)
    assert broker.depth == 1


async def test_who_waits_for_room_gets_in_when_there_is_some() -> None:
    broker = ChannelBroker(1)
    batches = broker.batches()
    await broker.publish(first := build_record(), 1)
    waiting = spawn(broker.publish(second := build_record(), 5), name="waiting")
    await asyncio.sleep(0)
    assert await anext(batches) == [first]
    await waiting
    assert await anext(batches) == [second]


async def test_late_comers_do_not_pass_those_who_wait() -> None:
    broker = ChannelBroker(1)
    await broker.publish(build_record(), 1)
    records = [build_record() for _ in range(4)]
    publishers = []
    for record in records:
        publishers.append(spawn(broker.publish(record, 5), name="publisher"))
        await asyncio.sleep(0)
    batches = broker.batches()
    await anext(batches)
    late = spawn(broker.publish(build_record(), 5), name="late")
    assert [(await anext(batches))[0] for _ in records] == records
    await asyncio.wait([*publishers, late])


async def test_who_gives_up_waiting_takes_no_room() -> None:
    broker = ChannelBroker(1)
    batches = broker.batches()
    await broker.publish(build_record(), 1)
    await cancel(spawn(broker.publish(build_record(), 5), name="gives up"))
    with pytest.raises(Busy):
        await broker.publish(build_record(), 0.001)
    await anext(batches)
    await broker.publish(record := build_record(), 0.001)
    assert await anext(batches) == [record]


async def test_what_comes_within_one_turn_of_the_loop_is_one_batch_however_much_it_is() -> None:
    broker = ChannelBroker(2)
    batches = broker.batches()

    async def take() -> Sequence[Record]:
        return await anext(batches)

    first = spawn(take(), name="taking")
    await asyncio.sleep(0)  # it waits for something to take
    records = [build_record() for _ in range(5)]
    assert all(map(broker.publish_now, records))
    assert await first == records
    assert [broker.publish_now(build_record()) for _ in range(3)] == [True, True, False], "it is busy with the first"


async def test_after_closing_nothing_is_taken() -> None:
    broker = ChannelBroker(1)
    await broker.close()
    await broker.close()
    with pytest.raises(Busy, match="shutting down"):
        await broker.publish(build_record(), 1)


async def test_after_closing_what_was_taken_is_handed_over_and_then_it_ends() -> None:
    """KamaChat defect 17: a shutdown dropped what was queued, and a late publish ended the process."""
    broker = ChannelBroker(10)
    records = [build_record(), build_record()]
    for record in records:
        await broker.publish(record, 1)
    await broker.close()
    assert [batch async for batch in broker.batches()] == [records]


async def test_closing_ends_a_consumer_that_waits() -> None:
    broker = ChannelBroker(10)
    consumer = spawn(collect(broker, []), name="consumer")
    await asyncio.sleep(0)
    await broker.close()
    async with asyncio.timeout(5):
        await consumer


async def test_all_who_wait_when_it_closes_are_told_at_once() -> None:
    broker = ChannelBroker(1)
    await broker.publish(taken := build_record(), 1)
    waiting = [spawn(broker.publish(build_record(), 30), name="waiting") for _ in range(3)]
    await asyncio.sleep(0)
    await broker.close()
    async with asyncio.timeout(5):
        batches = [batch async for batch in broker.batches()]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert batches == [[taken]]
    assert [str(outcome) for outcome in outcomes] == ["the node is shutting down: send it again to a running node"] * 3


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 40))
def test_whatever_was_published_comes_out_once_and_in_each_senders_order(
    size: int, pauses: list[int], close_after: int
) -> None:
    """With any number of senders, any pace, and a close at any time."""

    async def scenario() -> None:
        broker = ChannelBroker(size)
        taken: list[int] = []
        batches: list[Sequence[Record]] = []

        async def send(sender: int, pause: int) -> None:
            for _ in range(3):
                for _ in range(pause):
                    await asyncio.sleep(0)
                record = build_record(f"U{sender}")
                try:
                    await broker.publish(record, 30)
                except Busy:
                    return
                taken.append(record.uuid)

        senders = [spawn(send(number, pause), name="sender") for number, pause in enumerate(pauses)]
        consumer = spawn(collect(broker, batches), name="consumer")
        for _ in range(close_after):
            await asyncio.sleep(0)
        await broker.close()
        async with asyncio.timeout(10):
            await asyncio.wait([*senders, consumer])
        records = [record for batch in batches for record in batch]
        assert sorted(record.uuid for record in records) == sorted(taken)
        for sender in range(len(pauses)):
            own = [record.uuid for record in records if record.request.send_id == f"U{sender}"]
            assert own == sorted(own)

    asyncio.run(scenario())


async def test_a_record_that_finds_room_is_published_without_waiting() -> None:
    broker = ChannelBroker(1)
    assert broker.publish_now(record := build_record())
    assert await anext(broker.batches()) == [record]


async def test_publishing_now_does_nothing_when_it_would_have_to_wait() -> None:
    broker = ChannelBroker(1)
    await broker.publish(build_record(), 1)
    assert not broker.publish_now(build_record())
    assert broker.depth == 1


async def test_publishing_now_does_not_pass_those_who_wait() -> None:
    broker = ChannelBroker(2)
    first = [build_record(), build_record()]
    for record in first:
        await broker.publish(record, 1)
    waiting = [spawn(broker.publish(build_record(), 5), name="waiting") for _ in range(3)]
    await asyncio.sleep(0)
    batches = broker.batches()
    assert await anext(batches) == first
    assert not broker.publish_now(build_record())
    assert len(await anext(batches)) == 2
    await asyncio.wait(waiting)
    assert broker.publish_now(build_record())


async def test_publishing_now_after_closing_is_refused() -> None:
    broker = ChannelBroker(1)
    await broker.close()
    with pytest.raises(Busy, match="shutting down"):
        broker.publish_now(build_record())
