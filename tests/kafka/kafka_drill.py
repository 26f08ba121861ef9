"""A ledger for bad days: people who talk all the while, and what must be true once they have ended.

Everything acknowledged is stored once; everybody ends with every seq of every conversation, once and in order;
and no connection was pushed anything twice, out of order or with a gap.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from kafka_cluster import Cluster, connected_postgres, create_group
from support import Frame, NodeProcess, token

from kama.chat_client import ChatClient, Tap
from kama.protocol import conversation_id

PEOPLE = 30
IN_GROUP = 9
GROUP = "Gdrill"
_PACE = 0.5
_SETTLE = 40.0


def _conversation(frame: Frame) -> str:
    return conversation_id(frame["send_id"], frame["receive_id"])


class _Wire(Tap):
    """Holds each connection to what a node owes it, whatever the client makes of it."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._last: dict[str, int] = {}
        self._pulling: set[str] = set()

    def opened(self) -> None:
        self._last, self._pulling = {}, set()

    def sent(self, frame: Frame) -> None:
        if frame["type"] == "pull":
            self._pulling.add(frame["conversation"])

    def received(self, frame: Frame) -> None:
        if frame.get("event") == "pulled":
            self._pulling.discard(frame["conversation"])
        if not isinstance(frame.get("type"), int):
            return
        key, seq = _conversation(frame), frame["seq"]
        last = self._last.get(key, seq - 1)
        # What it pulls it asked for, and may have seen before.
        if seq != last + 1 and key not in self._pulling:
            self.faults.append(f"{key}: {seq} came after {last}")
        self._last[key] = max(last, seq)


class Person:
    """A user on one node, whose client comes back to it."""

    def __init__(self, node: NodeProcess, user_id: str) -> None:
        self.user_id = user_id
        self.wire = _Wire()
        self.got: dict[str, list[int]] = {}
        self.client = ChatClient(node.url, user_id, lambda: token(user_id), self._take, tap=self.wire)

    def _take(self, frame: Frame) -> None:
        self.got.setdefault(_conversation(frame), []).append(frame["seq"])


class Drill:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.people = [Person(cluster.nodes[n % len(cluster.nodes)], f"U{n:02}") for n in range(PEOPLE)]
        self.devices: list[Person] = []
        self.acked: list[str] = []
        self._running: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()

    async def sent(self, more: int = 150, seconds: float = 30) -> None:
        """Until that many more messages have been acknowledged."""
        count = len(self.acked) + more
        deadline = time.monotonic() + seconds
        while len(self.acked) < count:
            assert time.monotonic() < deadline, f"{len(self.acked)} of {count} messages were acknowledged"
            await asyncio.sleep(0.02)

    async def add_device(self, person: Person, node: NodeProcess) -> None:
        """The same user on another node: it wants all that there ever was."""
        device = Person(node, person.user_id)
        self.devices.append(device)
        self._run(device)
        await device.client.wait_caught_up()

    def _run(self, person: Person) -> None:
        self._running.append(asyncio.get_running_loop().create_task(person.client.run()))

    async def talk(self, number: int) -> None:
        """To the neighbour, and sometimes to the group, until the drill is over."""
        person, neighbour = self.people[number], self.people[(number + 1) % PEOPLE]
        said = 0
        while not self._over.is_set():
            to_group = number < IN_GROUP and said % 5 == 0
            content = f"{person.user_id} {said}"
            await person.client.send(GROUP if to_group else neighbour.user_id, content)
            self.acked.append(content)
            said += 1
            await asyncio.sleep(_PACE)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """People talk while the body has its bad day; then everything must be in its place."""
        members = [person.user_id for person in self.people[:IN_GROUP]]
        await create_group(self.cluster.nodes[0], GROUP, members[0], *members[1:])
        try:
            for person in self.people:
                self._run(person)
            async with asyncio.timeout(20):
                for person in self.people:
                    await person.client.wait_caught_up()
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as talking:
                for number in range(PEOPLE):
                    talking.create_task(self.talk(number))
                await self.sent()
                yield
                await self.sent()
                self._over.set()
                limit.reschedule(asyncio.get_running_loop().time() + _SETTLE)
            await self._settled()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running)
        await self._check()

    async def _settled(self) -> None:
        """Until everybody has as much as there is."""
        wanted = await self._last_seqs()
        deadline = time.monotonic() + _SETTLE
        while missing := self._missing(wanted):
            assert time.monotonic() < deadline, f"never came: {missing[:5]}"
            await asyncio.sleep(0.05)

    async def _last_seqs(self) -> dict[str, int]:
        """Once everything that was acknowledged is stored."""
        deadline = time.monotonic() + _SETTLE
        while True:
            rows = await self._rows()
            if len(rows) >= len(self.acked):
                return {row["conversation"]: row["seq"] for row in rows}
            assert time.monotonic() < deadline, f"{len(rows)} of {len(self.acked)} acknowledged messages are stored"
            await asyncio.sleep(0.1)

    def _missing(self, last_seqs: dict[str, int]) -> list[str]:
        return [
            f"{person.user_id} has {len(person.got.get(key, ()))} of {last} of {key}"
            for person in (*self.people, *self.devices)
            for key, last in last_seqs.items()
            if self._takes_part(person, key) and len(person.got.get(key, ())) < last
        ]

    def _takes_part(self, person: Person, key: str) -> bool:
        if key == GROUP:
            return person.user_id in {member.user_id for member in self.people[:IN_GROUP]}
        return person.user_id in key.split("_")

    async def _rows(self) -> Sequence[Any]:
        async with connected_postgres(self.cluster.places.postgres) as database:
            rows: Sequence[Any] = await database.fetch(
                "SELECT conversation, seq, content FROM message ORDER BY conversation, seq"
            )
            return rows

    async def _check(self) -> None:
        rows = await self._rows()
        assert Counter(row["content"] for row in rows) == Counter(self.acked), "each was stored once, and nothing else"
        by_conversation: dict[str, list[int]] = {}
        for row in rows:
            by_conversation.setdefault(row["conversation"], []).append(row["seq"])
        for key, seqs in by_conversation.items():
            assert seqs == list(range(1, len(seqs) + 1)), f"{key} has a gap"
        for person in (*self.people, *self.devices):
            mine = {key: seqs for key, seqs in by_conversation.items() if self._takes_part(person, key)}
            assert person.got == mine, f"what {person.user_id} got is not what there is"
            assert not person.wire.faults, f"pushed to {person.user_id}: {person.wire.faults[:5]}"
