"""KafkaBroker: how it reaches Kafka, and what becomes of a message for which Kafka has no answer, or a bad one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OutOfOrderSequenceNumber
from aiokafka.structs import RecordMetadata, TopicPartition
from kafka_builders import Kafka, contents, corner_of, new_record, take
from server_builders import until
from structlog.testing import capture_logs
from test_services import Environment, services, services_in, started_url
from test_services_kafka import VARIABLE, heavy

from kama.errors import Busy, CannotConnect, KamaError, SettingsError, TooLarge
from kama.server.broker import Record, Stored
from kama.server.kafka.connection import KafkaConnection
from kama.server.kafka_broker import KafkaBroker
from kama.server.tasks import cancel, spawn
from kama.settings import KafkaSettings

_PLACE = RecordMetadata("t", 0, TopicPartition("t", 0), 7, 0, 0, 0)


@pytest.fixture
async def kafka(kafka_servers: str) -> AsyncIterator[Kafka]:
    async with corner_of(kafka_servers) as corner:
        yield corner


# --- the way there


@contextlib.asynccontextmanager
async def broker_at(servers: str, *, in_flight: int = 10, **values: Any) -> AsyncIterator[KafkaBroker]:
    settings = KafkaSettings.model_validate({"bootstrap_servers": servers, **values})
    broker = KafkaBroker(settings, node="n1", in_flight=in_flight, alone=True)
    yield broker
    await broker.stop()


def connection_to(servers: str, **values: Any) -> KafkaConnection:
    return KafkaConnection(KafkaSettings.model_validate({"bootstrap_servers": servers, **values}), "n1")


async def test_nobody_at_the_address_is_told_with_the_setting_and_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with broker_at(address) as broker, asyncio.timeout(10):
        with pytest.raises(CannotConnect, match=rf"{address} \(kafka\.bootstrap_servers\)"):
            await broker.start()


async def test_a_start_that_is_given_up_leaves_nothing_open() -> None:
    """An address that takes connections and never answers; clients left open would warn."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with broker_at(f"127.0.0.1:{silent.getsockname()[1]}") as broker:
            starting = spawn(broker.start(), name="start")
            connection, _ = await asyncio.to_thread(silent.accept)
            await cancel(starting)
            connection.close()
            assert starting.cancelled()


async def test_a_broker_that_was_not_started_takes_nothing_and_can_be_ended() -> None:
    async with broker_at("127.0.0.1:1") as broker:
        with pytest.raises(Busy):
            await broker.publish(new_record(), 1)
        for ask in (broker.check(), broker.forward("n2", b"[]")):
            with pytest.raises(KafkaError, match="not started"):
                await ask
        assert [batch async for batch in broker.batches()] == [payload async for payload in broker.inbox()] == []


def test_the_security_settings_reach_the_clients() -> None:
    values = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "kama"}
    options = connection_to("a:1, b:2", **values, sasl_password="s3cret").options()
    context = options.pop("ssl_context")
    assert context.check_hostname
    assert options.items() >= {
        "bootstrap_servers": ["a:1", "b:2"], "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "kama", "sasl_plain_password": "s3cret",
    }.items()  # fmt: skip


def test_without_a_word_on_security_there_is_none() -> None:
    assert not {name for name in connection_to("a:1").options() if name.startswith(("sasl", "ssl"))}


async def test_certificates_that_are_not_there_are_told_with_the_setting() -> None:
    async with broker_at("127.0.0.1:1", security_protocol="SSL", ssl_cafile="no/such.pem") as broker:
        with pytest.raises(SettingsError) as error:
            await broker.start()
    assert (error.value.field, "no/such.pem" in str(error.value)) == ("kafka.ssl_cafile", True)


@pytest.mark.kafka
@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
async def test_what_is_compressed_is_read_like_anything_else(kafka: Kafka, codec: Any) -> None:
    broker = await kafka.start(compression=codec)
    await broker.publish(new_record(content="x" * 10_000), 5)
    assert contents(await take(broker.batches(), 1)) == ["x" * 10_000]


# --- what senders are told


class Told:
    """What became of messages, as their senders hear it."""

    def __init__(self) -> None:
        self.outcomes: list[Stored | KamaError] = []

    def record(self, **fields: Any) -> Record:
        made = new_record(**fields)
        made.settle = lambda _record, outcome: self.outcomes.append(outcome)
        return made

    @property
    def kinds(self) -> list[str]:
        return [type(outcome).__name__ for outcome in self.outcomes]


class Producer:
    """Kafka's part: it acknowledges, or does not, when the test says so."""

    def __init__(self) -> None:
        self.sent: list[asyncio.Future[Any]] = []
        self.stopped = 0

    async def send(self, topic: str, value: bytes, **_: Any) -> asyncio.Future[Any]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]

    async def stop(self) -> None:
        self.stopped += 1

    async def flush(self) -> None: ...


@pytest.fixture
async def producer() -> Producer:
    return Producer()


@pytest.fixture
async def broker(producer: Producer) -> AsyncIterator[KafkaBroker]:
    async with broker_at("127.0.0.1:1", in_flight=2) as made:
        made._publisher.producer = producer
        yield made


@pytest.fixture
def told() -> Told:
    return Told()


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_has_waited_too_long_is_told_busy_and_nothing_after_that(
    broker: KafkaBroker, producer: Producer, told: Told
) -> None:
    await broker.publish(told.record(), 0.01)
    await until(lambda: len(told.outcomes) == 1)
    producer.sent[0].set_result(_PLACE)
    await turns()
    assert (told.kinds, broker.depth) == (["Busy"], 0)
    assert "has not acknowledged the message for 0.01 s: send it again with the same" in str(told.outcomes[0])


async def test_an_acknowledgement_in_the_turn_of_the_deadline_is_told(
    broker: KafkaBroker, producer: Producer, told: Told
) -> None:
    await broker.publish(told.record(), 0.01)
    producer.sent[0].set_result(_PLACE)
    time.sleep(0.02)  # noqa: ASYNC251 - the loop is late, and finds both at once
    await turns()
    assert told.kinds == ["Stored"]


@pytest.mark.parametrize(
    ("error", "kind"), [(KafkaError("no"), "Busy"), (MessageSizeTooLargeError("big"), "TooLarge"), (None, "Busy")]
)
async def test_who_sent_what_kafka_did_not_take_is_told_once(
    broker: KafkaBroker, producer: Producer, told: Told, error: Exception | None, kind: str
) -> None:
    await broker.publish(told.record(), 0.01)
    if error is None:
        producer.sent[0].cancel()
    else:
        producer.sent[0].set_exception(error)
    await asyncio.sleep(0.02)
    assert (told.kinds, broker.depth) == ([kind], 0)


async def test_no_more_is_under_way_than_there_is_room_for(broker: KafkaBroker, producer: Producer, told: Told) -> None:
    for _ in range(2):
        await broker.publish(told.record(), 5)
    with pytest.raises(Busy, match=r"acknowledged nothing for 0\.01 s"):
        await broker.publish(told.record(), 0.01)
    waiting = spawn(broker.publish(told.record(), 5), name="waiting")
    producer.sent[0].set_result(_PLACE)
    await waiting
    assert (broker.depth, len(producer.sent), told.kinds) == (2, 3, ["Stored"])


async def test_who_gives_up_takes_no_room(broker: KafkaBroker, producer: Producer, told: Told) -> None:
    for _ in range(2):
        await broker.publish(told.record(), 5)
    waiting = spawn(broker.publish(told.record(), 5), name="waiting")
    await turns()
    await cancel(waiting)
    producer.sent[0].set_result(_PLACE)
    await broker.publish(told.record(), 0.01)
    assert len(producer.sent) == 3


async def test_a_producer_that_lost_its_place_is_replaced(
    broker: KafkaBroker, producer: Producer, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idempotent producer goes on failing from there on."""
    fresh = Producer()

    async def started_producer() -> Producer:
        return fresh

    monkeypatch.setattr(broker._publisher._connection, "started_producer", started_producer)
    with capture_logs() as logs:
        for _ in range(2):
            await broker.publish(told.record(), 5)
        for future in producer.sent:
            future.set_exception(OutOfOrderSequenceNumber())
        await until(lambda: producer.stopped == 1)
        await broker.publish(told.record(), 5)
    assert (len(fresh.sent), told.kinds, len(logs)) == (1, ["Busy", "Busy"], 1)


# --- a Kafka that goes away


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Environment]:
    """A Kafka of this test alone, which may be stopped."""
    with services_in(tmp_path / "services") as chosen:
        yield chosen


async def control(environment: Environment, action: str) -> None:
    done = await asyncio.to_thread(services, environment, action, "kafka-1")
    assert done.returncode == 0, done.stderr


@pytest.mark.kafka
@heavy
async def test_while_kafka_hangs_senders_are_told_busy_in_time_and_once(
    own_kafka: Environment, kafka_servers: str, told: Told
) -> None:
    """And what Kafka did get meanwhile is not lost for that, nor twice in the topic."""
    async with corner_of(await asyncio.to_thread(started_url, own_kafka, "kafka", VARIABLE)) as kafka:
        broker = await kafka.start(in_flight=3)
        await broker.publish(told.record(content="before"), 5)
        await until(lambda: told.kinds == ["Stored"])
        await control(own_kafka, "pause")
        began = time.monotonic()
        for number in range(3):
            await broker.publish(told.record(content=f"meanwhile {number}"), 0.5)
        with pytest.raises(Busy):
            await broker.publish(told.record(content="no room"), 0.5)
        await until(lambda: len(told.outcomes) == 4)
        assert time.monotonic() - began < 3
        with pytest.raises((KafkaError, TimeoutError)):
            await broker.check()
        await control(own_kafka, "resume")
        taken = await take(broker.batches(), 4)
        await until(lambda: broker._publisher.in_flight == 0)
        await broker.check()
    assert contents(taken) == ["before", "meanwhile 0", "meanwhile 1", "meanwhile 2"]
    assert told.kinds == ["Stored", "Busy", "Busy", "Busy"]


@pytest.mark.kafka
@heavy
async def test_after_kafka_was_away_messages_flow_again(own_kafka: Environment, kafka_servers: str, told: Told) -> None:
    async with corner_of(await asyncio.to_thread(started_url, own_kafka, "kafka", VARIABLE)) as kafka:
        broker = await kafka.start()
        await control(own_kafka, "kill")
        with contextlib.suppress(Busy):
            await broker.publish(told.record(content="away"), 0.5)
            await until(lambda: told.kinds == ["Busy"])
        with pytest.raises((KafkaError, TimeoutError)):
            await broker.check()
        await control(own_kafka, "restart")
        await broker.publish(told.record(content="back"), 20)
        assert contents(await take(broker.batches(), 1))[-1:] in (["back"], ["away"])
        await until(lambda: told.kinds[-1] == "Stored")


@pytest.mark.kafka
async def test_a_message_larger_than_kafka_takes_is_refused_for_good(kafka: Kafka) -> None:
    broker = await kafka.start()
    with pytest.raises(TooLarge), capture_logs() as logs:
        await broker.publish(new_record(content="x" * (2 << 20)), 5)
    assert (broker.depth, logs) == (0, [])
    await broker.publish(new_record(content="small"), 5)
    assert contents(await take(broker.batches(), 1)) == ["small"]
