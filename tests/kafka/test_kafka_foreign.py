"""Whoever writes to the topic is a sender: a bare ChatMessageRequest from any Kafka client is a message."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from kafka_cluster import Cluster, connected_postgres, history, login, new_user
from support import text_message

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def producer(cluster: Cluster) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=cluster.places.kafka) as client:
        yield client


@asynccontextmanager
async def consumer(cluster: Cluster, **options: str) -> AsyncIterator[AIOKafkaConsumer]:
    async with AIOKafkaConsumer(
        bootstrap_servers=cluster.places.kafka, enable_auto_commit=False, auto_offset_reset="earliest", **options
    ) as client:
        yield client


def bare(send_id: str, receive_id: str, content: str) -> bytes:
    return json.dumps(text_message(send_id, receive_id, content)).encode()


async def test_a_bare_request_is_stored_and_delivered(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[0], me) as sender, login(trio.nodes[1], you) as receiver:
        async with producer(trio) as client:
            await client.send_and_wait(trio.topic, bare(me, you, "from outside"), key=f"{me}_{you}".encode())
        for peer in (sender, receiver):
            (message,) = await peer.wait_for_many(1)
            assert (message["content"], message["seq"], message["send_id"]) == ("from outside", 1, me)
        assert [kept["uuid"] for kept in await history(trio.nodes[2], me, you)] == [message["uuid"]]


async def test_bare_requests_without_a_key_share_a_conversation_with_clients(trio: Cluster) -> None:
    """A foreign producer may not know how we spread the conversations."""
    me, you = new_user(), new_user()
    async with login(trio.nodes[0], me) as sender, login(trio.nodes[1], you) as receiver:
        async with producer(trio) as client:
            for number in range(20):
                await client.send_and_wait(trio.topic, bare(me, you, f"outside {number}"))
                await sender.say(you, f"inside {number}")
        for peer in (sender, receiver):
            messages = await peer.wait_for_many(40)
            assert [message["seq"] for message in messages] == list(range(1, 41))
        assert len({message["content"] for message in messages}) == 40


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not on the PATH")
async def test_what_kcat_writes_is_a_message(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[2], you) as receiver:
        command = ["kcat", "-P", "-b", trio.places.kafka, "-t", trio.topic, "-k", f"{me}_{you}"]
        await asyncio.to_thread(subprocess.run, command, input=bare(me, you, "from a shell"), check=True, timeout=20)
        (message,) = await receiver.wait_for_many(1)
    assert message["content"] == "from a shell"


async def test_a_broken_payload_is_a_dead_letter_and_holds_nothing_up(trio: Cluster) -> None:
    me, you = new_user(), new_user()
    async with login(trio.nodes[1], you) as receiver, producer(trio) as client:
        broken = await client.send_and_wait(trio.topic, b"{no JSON", partition=0, headers=[("from", b"afar")])
        await client.send_and_wait(trio.topic, bare(me, you, "behind it"), partition=0)
        (message,) = await receiver.wait_for_many(1)
        assert message["content"] == "behind it"
    async with consumer(trio) as reader:
        reader.assign([TopicPartition(f"{trio.topic}.dlq", 0)])
        async with asyncio.timeout(10):
            while (letter := await reader.getone()).value != b"{no JSON":
                pass
    headers = dict(letter.headers)
    assert headers["from"] == b"afar"
    assert b"JSON" in headers["kama_reason"]
    assert headers["kama_source"] == f"{trio.topic}/0/{broken.offset}".encode()


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b'{"type":0,"send_id":"U1","content":"to nobody"}', b"receive_id"),
        (b'{"type":0,"send_id":"nobody","receive_id":"U2","content":"x"}', b"send_id"),
        (b'{"type":"ping"}', b"type"),
        (b'{"type":3,"send_id":"U1","receive_id":"U2","av_data":"no JSON"}', b"av_data"),
        (b"[]", b"object"),
        (b"", b""),
        (None, b""),
    ],
    ids=["no receiver", "bad sender", "control frame", "bad signal", "no object", "empty", "tombstone"],
)
async def test_a_record_that_is_no_message_is_a_dead_letter_that_says_why(
    trio: Cluster, record: bytes | None, reason: bytes
) -> None:
    async with producer(trio) as client, consumer(trio) as reader:
        place = TopicPartition(f"{trio.topic}.dlq", 0)
        reader.assign([place])
        await reader.seek_to_end(place)
        await reader.position(place)
        sent = await client.send_and_wait(trio.topic, record, key=b"k", partition=1)
        letter = await asyncio.wait_for(reader.getone(), 10)
    headers = dict(letter.headers)
    assert (letter.key, letter.value or None) == (b"k", record or None)
    assert headers["kama_source"] == f"{trio.topic}/1/{sent.offset}".encode()
    assert reason in headers["kama_reason"] and headers["kama_reason"]


@pytest.mark.heavy
async def test_what_is_read_again_is_stored_and_shown_once(trio: Cluster) -> None:
    """The group's offsets are set back while no node reads, as when nodes die before they commit."""
    me, you = new_user(), new_user()
    async with login(trio.nodes[0], me) as sender, producer(trio) as client:
        for number in range(10):
            await client.send_and_wait(trio.topic, bare(me, you, f"outside {number}"), partition=2)
            await sender.say(you, f"inside {number}", client_msg_id=f"m{number}")
        await sender.wait_for_many(20)
    first = await history(trio.nodes[0], me, you)

    for node in trio.nodes:
        node.signal(15)
    for node in trio.nodes:
        await asyncio.to_thread(node.wait)
    await _set_back(trio)
    for node in trio.nodes:
        await asyncio.to_thread(node.start)
    async with login(trio.nodes[0], me) as sender, login(trio.nodes[1], you) as receiver, producer(trio) as client:
        # The last one of each partition that has one of ours: when these are there, all before has been read again.
        await client.send_and_wait(trio.topic, bare(me, you, "the end outside"), partition=2)
        await sender.say(you, "the end inside")
        await receiver.wait_for_many(22)
        assert sorted(message["seq"] for message in receiver.messages) == list(range(1, 23))
    again = await history(trio.nodes[2], me, you)
    assert [(kept["uuid"], kept["seq"]) for kept in again[:20]] == [(kept["uuid"], kept["seq"]) for kept in first]
    async with connected_postgres(trio.places.postgres) as database:
        assert await database.fetchval("SELECT count(*) FROM message WHERE send_id = $1", me) == 22


async def _set_back(cluster: Cluster) -> None:
    """The group has read nothing: possible once it has no members."""
    async with consumer(cluster, group_id=cluster.group) as reader:
        places = [TopicPartition(cluster.topic, partition) for partition in range(12)]
        reader.assign(places)
        await reader.commit(dict.fromkeys(places, 0))
