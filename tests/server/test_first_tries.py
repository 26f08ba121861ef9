"""Retries: a message that comes again is known by the id of its first try, at the cost of one query for many."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from server_builders import SQL_ALONE, build_record, until

from kama.protocol import Message
from kama.server.retries import Key, Retries
from kama.server.store.messages import MessageStore


class Shelf:
    """What is stored, and how it was asked for."""

    def __init__(self) -> None:
        self.stored: dict[Key, int] = {}
        self.asked: list[list[Key]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def look_up(self, keys: Sequence[Key]) -> Mapping[Key, int]:
        self.asked.append(list(keys))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return {key: self.stored[key] for key in keys if key in self.stored}


@pytest.fixture
async def shelf() -> Shelf:
    return Shelf()


async def test_what_is_stored_has_its_id_and_what_is_new_has_none(shelf: Shelf) -> None:
    retries = Retries(shelf.look_up)
    await retries.start()
    shelf.stored["U1", "a"] = 7
    assert await retries.find(("U1", "a")) == 7
    assert await retries.find(("U1", "b")) is None
    await retries.close()


async def test_what_this_node_took_is_remembered_without_asking(shelf: Shelf) -> None:
    retries = Retries(shelf.look_up)
    await retries.start()
    retries.remember(("U1", "a"), 9)
    assert await retries.find(("U1", "a")) == 9
    assert shelf.asked == []
    await retries.close()


async def test_all_that_gather_meanwhile_are_asked_for_at_once(shelf: Shelf) -> None:
    retries = Retries(shelf.look_up)
    await retries.start()
    shelf.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(retries.find(("U1", "first")))
        await until(lambda: len(shelf.asked) == 1)
        for number in range(50):
            group.create_task(retries.find(("U1", f"{number % 25}")))
        await asyncio.sleep(0)
        shelf.gate.set()
    assert [len(keys) for keys in shelf.asked] == [1, 25]
    await retries.close()


async def test_a_store_that_fails_makes_nobody_wait_and_everything_new(shelf: Shelf) -> None:
    retries = Retries(shelf.look_up)
    await retries.start()
    shelf.failure = OSError("away")
    assert await retries.find(("U1", "a")) is None
    shelf.failure = None
    shelf.stored["U1", "a"] = 7
    assert await retries.find(("U1", "a")) == 7, "and it is asked again once it is back"
    await retries.close()


async def test_the_store_finds_them_by_sender_and_client_msg_id(messages: MessageStore) -> None:
    records = [build_record("U1", "U2", client_msg_id="a"), build_record("U2", "U1", client_msg_id="a")]
    await messages.insert_batch([*records, build_record("U1", "U2")])
    asked = [("U1", "a"), ("U2", "a"), ("U3", "a"), ("U1", "b")]
    assert await messages.uuids(asked) == {("U1", "a"): records[0].uuid, ("U2", "a"): records[1].uuid}


@SQL_ALONE
async def test_a_record_that_comes_again_with_other_words_is_the_one_that_is_stored(messages: MessageStore) -> None:
    first = build_record("U1", "U2", content="first")
    await messages.insert_batch([first])
    again = build_record("U1", "U3", uuid=first.uuid, content="second")
    batch = await messages.insert_batch([again])
    (back,) = batch.backs
    assert back is not None
    message = msgspec.json.decode(back.frame, type=Message)
    assert (message.content, message.receive_id, batch.outcomes[0].conversation) == ("first", "U2", "U1_U2")
