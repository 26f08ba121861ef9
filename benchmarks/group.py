"""Group fan-out: one group, all members connected, each in turn writes. Each message goes to every member."""

from __future__ import annotations

import asyncio
from functools import partial
from time import perf_counter

from benchmarks.client import Alarm, Client, Failed, Template, number_of
from benchmarks.load import Figures, Load, Timing, log_in
from benchmarks.servers import KamaServer, Server

GROUP = "Gbenchmark"


class Group(Load):
    """`window` messages under way; one has arrived when every member has got it."""

    def __init__(self, alarm: Alarm, members: list[Client], window: int) -> None:
        super().__init__(alarm)
        self._members = members
        self._window = window
        self._templates = [Template(member.user_id, GROUP, member.dialect) for member in members]
        self._missing: list[int] = []
        self._numbers: list[list[int]] = [[] for _ in members]
        self._under_way = 0
        self.sent_at: list[float] = []
        for member, numbers in zip(members, self._numbers, strict=True):
            member.expected = Client.any_message
            member.on_message = partial(self._on_message, numbers)

    @property
    def received(self) -> int:
        return sum(map(len, self._numbers))

    @property
    def under_way(self) -> int:
        return self._under_way

    def start(self) -> None:
        while self.running and self._under_way < self._window:
            number = len(self.sent_at)
            turn = number % len(self._members)
            self._under_way += 1
            self._missing.append(len(self._members))
            self.sent_at.append(perf_counter())
            self._members[turn].send(self._templates[turn].message(number))

    def check(self) -> None:
        """Every member has got each message once. Raises Failed."""
        everything = list(range(len(self.sent_at)))
        for member, numbers in zip(self._members, self._numbers, strict=True):
            if sorted(numbers) != everything:
                raise Failed(f"{member.user_id} got {len(numbers)} of {len(everything)} messages, or got them twice")

    def _on_message(self, numbers: list[int], message: bytes) -> None:
        number = number_of(message)
        numbers.append(number)
        self.latencies.append(perf_counter() - self.sent_at[number])
        self._missing[number] -= 1
        if not self._missing[number]:
            self._under_way -= 1
            self.start()


async def run(server: Server, timing: Timing, members: int, window: int) -> tuple[Figures, dict[str, int]]:
    """The figures, and how many messages the group was sent."""
    alarm = Alarm()
    user_ids = [f"Um{number}" for number in range(members)]
    if isinstance(server, KamaServer):
        await asyncio.to_thread(server.create_group, GROUP, user_ids)
    clients = await log_in(alarm, server, user_ids)
    load = Group(alarm, clients, window)
    figures = await load.measure(server, timing)
    for client in clients:
        client.leave()
    load.check()
    return figures, {GROUP: len(load.sent_at)}
