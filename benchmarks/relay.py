"""1:1 relay: pairs of users, one side writes. Each message goes to the receiver and back to the sender."""

from __future__ import annotations

from benchmarks.check import check_conversation
from benchmarks.load import Figures, Load, Timing, log_in
from benchmarks.peer import Alarm, Peer, Template
from benchmarks.servers import Server


class Pair:
    """`window` messages under way; one has arrived when both the receiver and the sender have got it."""

    def __init__(self, load: Relay, sender: Peer, receiver: Peer, window: int) -> None:
        self.sender = sender
        self.receiver = receiver
        self._load = load
        self._window = window
        self._template = Template(sender.user_id, receiver.user_id)
        self.sent_at: list[float] = []
        self._received = self._echoed = 0
        sender.on_message = self._on_echo
        receiver.on_message = self._on_receipt

    @property
    def under_way(self) -> int:
        return len(self.sent_at) - min(self._received, self._echoed)

    def fill(self, now: float) -> None:
        while self._load.running and self.under_way < self._window:
            self.sender.send(self._template.frame(len(self.sent_at)))
            self.sent_at.append(now)

    def _on_receipt(self, _message: bytes, now: float) -> None:
        # The messages of one pair come in order: which one this is need not be read (and is checked afterwards).
        self._load.latencies.append(now - self.sent_at[self._received])
        self._received += 1
        self.fill(self._load.clock())

    def _on_echo(self, _message: bytes, now: float) -> None:
        self._echoed += 1
        self.fill(self._load.clock())


class Relay(Load):
    def __init__(self, alarm: Alarm, peers: list[Peer], window: int) -> None:
        super().__init__(alarm)
        ends = zip(peers[::2], peers[1::2], strict=True)
        self.pairs = [Pair(self, sender, receiver, window) for sender, receiver in ends]

    def start(self) -> None:
        for pair in self.pairs:
            pair.fill(self.clock())

    @property
    def under_way(self) -> int:
        return sum(pair.under_way for pair in self.pairs)


async def run(server: Server, timing: Timing, pairs: int, window: int) -> tuple[Figures, dict[str, int]]:
    """The figures, and how many messages each conversation was sent."""
    alarm = Alarm()
    peers = await log_in(alarm, server, [f"U{side}{number}" for number in range(pairs) for side in "sr"])
    load = Relay(alarm, peers, window)
    figures = await load.measure(server, timing)
    for peer in peers:
        peer.leave()
    sent: dict[str, int] = {}
    for pair in load.pairs:
        sender, receiver = pair.sender, pair.receiver
        sent[f"{receiver.user_id}_{sender.user_id}"] = len(pair.sent_at)
        for peer in (receiver, sender):
            check_conversation(peer, len(pair.sent_at), has_seqs=server.is_kama, in_order_of_sending=True)
    return figures, sent
