"""ConnectionFrames: the messages of one connection as they came over the wire, below what a client makes of them.

A node pushes each message once on a connection, in the order of its seq. What answers a pull comes besides, and looks
the same: while one is under way, the frames of its conversation are kept, and at its end the last one of each seq in
its range is taken for the answer, for a node answers with what it has pushed before. What is left was pushed.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class FrameCounts:
    """`twice` and `out_of_order` are faults. `skipped`: seqs left out before a push, which a client pulls."""

    twice: int = 0
    out_of_order: int = 0
    skipped: int = 0
    pulls: int = 0

    def add(self, other: FrameCounts) -> None:
        self.twice += other.twice
        self.out_of_order += other.out_of_order
        self.skipped += other.skipped
        self.pulls += other.pulls


@dataclass(slots=True)
class _Pull:
    """Asks for `first` to `last`; `came` is what came of the conversation since."""

    first: int
    last: int
    came: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Pushed:
    last: int = 0
    seqs: set[int] = field(default_factory=set)


class ConnectionFrames:
    """Told of each frame in the order of the wire; counts into `counts`. One conversation has one pull at a time."""

    def __init__(self) -> None:
        self.counts = FrameCounts()
        self._pushed: dict[str, _Pushed] = {}
        self._pulls: dict[str, _Pull] = {}

    def pull(self, conversation: str, after_seq: int, limit: int) -> None:
        """A pull is sent."""
        self.pulled(conversation)
        self.counts.pulls += 1
        self._pulls[conversation] = _Pull(after_seq + 1, after_seq + limit)

    def pulled(self, conversation: str, last_seq: int | None = None) -> None:
        """The pull's answer has ended; it had nothing after `last_seq`. None: it was cut off."""
        pull = self._pulls.pop(conversation, None)
        if pull is None:
            return
        last = pull.last if last_seq is None else min(last_seq, pull.last)
        answer: set[int] = set()
        pushed: list[int] = []
        for seq in reversed(pull.came):
            if pull.first <= seq <= last and seq not in answer:
                answer.add(seq)
            else:
                pushed.append(seq)
        for seq in reversed(pushed):
            self._push(conversation, seq)

    def message(self, conversation: str, seq: int) -> None:
        """A stored message came: pushed, or pulled."""
        if (pull := self._pulls.get(conversation)) is not None:
            pull.came.append(seq)
        else:
            self._push(conversation, seq)

    def end(self) -> FrameCounts:
        """The connection has ended, and with it every answer that was under way."""
        for conversation in list(self._pulls):
            self.pulled(conversation)
        return self.counts

    def _push(self, conversation: str, seq: int) -> None:
        pushed = self._pushed.setdefault(conversation, _Pushed())
        if seq in pushed.seqs:
            self.counts.twice += 1
            return
        if seq < pushed.last:
            self.counts.out_of_order += 1
        elif pushed.seqs:  # where a connection begins, the node's cursor says
            self.counts.skipped += seq - pushed.last - 1
        pushed.seqs.add(seq)
        pushed.last = max(pushed.last, seq)
