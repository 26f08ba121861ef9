"""Group fan-out: one group, all members connected, each in turn writes. Each message goes to every member."""

from __future__ import annotations

import asyncio

from benchmarks.check import check_conversation
from benchmarks.load import Figures, Load, Timing, log_in
from benchmarks.peer import Alarm, Peer, Template, number_of
from benchmarks.servers import KamaServer, Server

GROUP = "Gbenchmark"


class Group(Load):
    """`window` messages under way; one has arrived when every member has got it."""

    def __init__(self, alarm: Alarm, members: list[Peer], window: int) -> None:
        super().__init__(alarm)
        self._members = members
        self._window = window
        self._templates = [Template(member.user_id, GROUP) for member in members]
        self._missing: list[int] = []
        self._under_way = 0
        self.sent_at: list[float] = []
        for member in members:
            member.on_message = self._on_message

    @property
    def under_way(self) -> int:
        return self._under_way

    def start(self) -> None:
        while self.running and self._under_way < self._window:
            number = len(self.sent_at)
            turn = number % len(self._members)
            self._under_way += 1
            self._missing.append(len(self._members))
            self.sent_at.append(self.clock())
            self._members[turn].send(self._templates[turn].frame(number))

    def _on_message(self, message: bytes, now: float) -> None:
        number = number_of(message)
        self.latencies.append(now - self.sent_at[number])
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
    peers = await log_in(alarm, server, user_ids)
    load = Group(alarm, peers, window)
    figures = await load.measure(server, timing)
    for peer in peers:
        peer.leave()
    for peer in peers:
        check_conversation(peer, len(load.sent_at), has_seqs=server.is_kama, in_order_of_sending=False)
    return figures, {GROUP: len(load.sent_at)}
