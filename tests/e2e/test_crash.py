"""kill -9: what was acknowledged is stored once, and everybody ends with everything once and in order."""

import asyncio
import signal
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support import NodeProcess, eventually, token

from kama.chat_client import ChatClient

USERS = 100
EACH = 100
KILLS_AT = (2000, 5000, 8000)

Frame = dict[str, Any]


class Person:
    """A user whose client comes back: it sends to its neighbour and keeps what it is given."""

    def __init__(self, url: str, number: int) -> None:
        self.user_id = f"U{number:03}"
        self.neighbour = f"U{(number + 1) % USERS:03}"
        self.got: dict[str, list[int]] = {}
        self.acked: dict[str, str] = {}
        self.client = ChatClient(url, self.user_id, lambda: token(self.user_id), self.take)

    def take(self, frame: Frame) -> None:
        pair = "_".join(sorted((frame["send_id"], frame["receive_id"])))
        self.got.setdefault(pair, []).append(frame["seq"])

    async def talk(self, lane: int, lanes: int) -> None:
        for number in range(lane, EACH, lanes):
            content = f"{self.user_id} {number}"
            self.acked[content] = await self.client.send(self.neighbour, content)


async def wait_until_acked(people: list[Person], count: int) -> None:
    while sum(len(person.acked) for person in people) < count:
        await asyncio.sleep(0.005)


async def kill_and_restart(node: NodeProcess, people: list[Person]) -> None:
    for count in KILLS_AT:
        await wait_until_acked(people, count)
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(node.start)


def stored(folder: Path) -> list[tuple[str, int, str]]:
    with sqlite3.connect(folder / "kama.db") as database:
        return database.execute("SELECT conversation, seq, content FROM message ORDER BY conversation, seq").fetchall()


@pytest.mark.heavy
@pytest.mark.timeout(180)
async def test_ten_thousand_messages_survive_three_kills(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        people = [Person(node.url, number) for number in range(USERS)]
        async with asyncio.TaskGroup() as running:
            clients = [running.create_task(person.client.run()) for person in people]
            async with asyncio.TaskGroup() as talking:
                talking.create_task(kill_and_restart(node, people))
                for person in people:
                    for lane in range(4):
                        talking.create_task(person.talk(lane, 4))
            whole = list(range(1, EACH + 1))
            await eventually(
                lambda: all(len(seqs) >= EACH for person in people for seqs in person.got.values()), seconds=60
            )
            for client in clients:
                client.cancel()
        node.signal(signal.SIGTERM)
        await asyncio.to_thread(node.wait)

    rows = stored(tmp_path / "node")
    contents = Counter(content for _, _, content in rows)
    acked = {content for person in people for content in person.acked}
    assert len(acked) == USERS * EACH
    assert contents == Counter(acked), "each acknowledged message is stored once, and nothing else is"
    by_conversation: dict[str, list[int]] = {}
    for conversation, seq, _ in rows:
        by_conversation.setdefault(conversation, []).append(seq)
    assert set(map(tuple, by_conversation.values())) == {tuple(whole)}
    for person in people:
        assert len(person.got) == 2, f"{person.user_id} has a part in two conversations"
        for conversation, seqs in person.got.items():
            assert seqs == whole, f"{person.user_id} in {conversation}"
    assert min(person.client.connects for person in people) > 1, "the kills reached everybody"
