"""1:1 relay: pairs of users, one side writes. Each message goes to the receiver and back to the sender."""

from __future__ import annotations

import asyncio
from time import perf_counter

from benchmarks.client import Alarm, Client, Failed, Template, mark_of
from benchmarks.load import Figures, Load, Timing, log_in, percentile
from benchmarks.servers import Server
from kama.protocol import conversation_id

Sent = dict[str, int]


class Pair:
    """A conversation. Its messages come in the order of their numbers on both sides, or the run ends.

    `due`: when the next one to be received left, or should have; `step`: how much later the one after it, in seconds.
    What happens for each message is in one place each, without a call that is not needed.
    """

    def __init__(self, load: Relay, sender: Client, receiver: Client) -> None:
        self.conversation = conversation_id(sender.user_id, receiver.user_id)
        self.sent = 0
        self.received = 0
        self.due = self.step = 0.0
        self._load = load
        self._sender = sender
        self._receiver = receiver
        self._template = Template(sender.user_id, receiver.user_id, sender.dialect)
        self._echoed = 0
        sender.expected = receiver.expected = mark_of(0)
        sender.on_message = self._on_echo
        receiver.on_message = self._on_receipt

    @property
    def under_way(self) -> int:
        return self.sent - min(self.received, self._echoed)

    def send(self) -> None:
        self._sender.send(self._template.message(self.sent))
        self.sent += 1

    def send_now(self) -> None:
        self.due = perf_counter()
        self.send()

    def _on_receipt(self, _message: bytes) -> None:
        load = self._load
        load.latencies.append(perf_counter() - self.due)
        self.due += self.step
        self.received = received = self.received + 1
        self._receiver.expected = mark_of(received)
        if load.is_closed and self._echoed == received:
            self.send_now()

    def _on_echo(self, _message: bytes) -> None:
        self._echoed = echoed = self._echoed + 1
        self._sender.expected = mark_of(echoed)
        if self._load.is_closed and echoed == self.received:
            self.send_now()


class Relay(Load):
    """A closed loop: in each pair one message is under way, and the next one leaves when both frames have come."""

    def __init__(self, alarm: Alarm, clients: list[Client]) -> None:
        super().__init__(alarm)
        self.is_closed = False
        ends = zip(clients[::2], clients[1::2], strict=True)
        self.pairs = [Pair(self, sender, receiver) for sender, receiver in ends]

    def start(self) -> None:
        self.is_closed = True
        for pair in self.pairs:
            pair.send_now()

    async def stop(self) -> None:
        self.is_closed = False
        await super().stop()

    @property
    def received(self) -> int:
        return sum(pair.received for pair in self.pairs)

    @property
    def under_way(self) -> int:
        return sum(pair.under_way for pair in self.pairs)


class PacedRelay(Relay):
    """A fixed rate: each message has its time, whatever became of those before, and its latency counts from then.

    The client looks at the clock without pause, so that it is late by microseconds only; `late` says by how much.
    """

    def __init__(self, alarm: Alarm, clients: list[Client], rate: float) -> None:
        super().__init__(alarm, clients)
        self._interval = 1 / rate
        self._next = 0
        self.late: list[float] = []

    async def warm_up(self, seconds: float) -> float:
        """A closed loop for so long: the server's messages/s in its second half."""
        super().start()
        await self._alarm.sleep(seconds / 2)
        before, since = self.received, perf_counter()
        await self._alarm.sleep(seconds / 2)
        peak = (self.received - before) / (perf_counter() - since)
        await self.stop()
        return peak

    def start(self) -> None:
        self.running = True
        self._zero = perf_counter()
        for place, pair in enumerate(self.pairs):
            pair.due = self._zero + place * self._interval
            pair.step = len(self.pairs) * self._interval
        self._tick()

    def _tick(self) -> None:
        if not self.running:
            return
        now, interval, pairs = perf_counter(), self._interval, self.pairs
        while (due := self._zero + self._next * interval) <= now:
            pairs[self._next % len(pairs)].send()
            self.late.append(now - due)
            self._next += 1
        asyncio.get_running_loop().call_soon(self._tick)


def user_ids(pairs: range) -> list[str]:
    return [f"U{side}{number}" for number in pairs for side in "sr"]


async def run(server: Server, timing: Timing, pairs: int, alarm: Alarm | None = None) -> tuple[Figures, Sent]:
    """The figures, and how many messages each conversation was sent. `alarm`: of connections that are there already."""
    alarm = alarm or Alarm()
    clients = await log_in(alarm, server, user_ids(range(pairs)))
    load = Relay(alarm, clients)
    figures = await load.measure(server, timing)
    return figures, _leave(load, clients)


async def run_paced(server: Server, timing: Timing, pairs: int, rate: float) -> tuple[Figures, Sent]:
    """As `run`, at `rate` messages/s. Only `peak`, in messages/s, for a server that cannot keep that up."""
    alarm = Alarm()
    clients = await log_in(alarm, server, user_ids(range(pairs)))
    load = PacedRelay(alarm, clients, rate)
    figures: Figures = {"peak": await load.warm_up(2 * timing.warm_up)}
    if figures["peak"] > rate:
        figures |= await load.measure(server, timing)
        figures["late_p99_ms"] = percentile(sorted(load.late), 0.99) * 1e3
    return figures, _leave(load, clients)


def _leave(load: Relay, clients: list[Client]) -> Sent:
    for client in clients:
        client.leave()
    if any(pair.received != pair.sent for pair in load.pairs):
        raise Failed("not all that was sent was received")
    return {pair.conversation: pair.sent for pair in load.pairs}
