"""Ledger: what became of each message, and whether that is what a node promises. No I/O.

It is told what was sent, acked, shown to each user, found in the store and seen on the wire; `verdict` adds it up.
A message is a number that is used once in a run. A message that nobody acked may be stored or not: that is no loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from kama.bench.frames import FrameCounts


@dataclass(frozen=True, slots=True)
class Verdict:
    """Numbers of messages, all of which but `unacked` and `skipped` have to be 0.

    `not_stored`: acked, or shown to somebody, and not in the store. `not_received`: acked and stored, once for each
    member who was not shown it. `stored_twice`, `shown_twice` (to one user), `pushed_twice` (on one connection): each
    time beyond the first. `…_out_of_order`: each seq that does not follow on the one before.
    """

    unacked: int = 0
    not_stored: int = 0
    not_received: int = 0
    stored_twice: int = 0
    shown_twice: int = 0
    pushed_twice: int = 0
    stored_out_of_order: int = 0
    shown_out_of_order: int = 0
    pushed_out_of_order: int = 0
    skipped: int = 0

    @property
    def lost(self) -> int:
        return self.not_stored + self.not_received

    @property
    def duplicated(self) -> int:
        return self.stored_twice + self.shown_twice + self.pushed_twice

    @property
    def reordered(self) -> int:
        return self.stored_out_of_order + self.shown_out_of_order + self.pushed_out_of_order

    @property
    def ok(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered)


@dataclass(slots=True)
class _Shown:
    """What one user was shown of a conversation."""

    last: int = 0
    messages: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Conversation:
    shown: dict[str, _Shown]
    sent: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)
    stored: Counter[int] = field(default_factory=Counter)
    last_stored: int = 0


class Ledger:
    """Every conversation is opened before anything is told of it; raises KeyError for one that was not."""

    def __init__(self) -> None:
        self._conversations: dict[str, _Conversation] = {}
        self._shown_twice = 0
        self._shown_out_of_order = 0
        self._stored_out_of_order = 0
        self._frames = FrameCounts()

    def open(self, conversation: str, members: Iterable[str]) -> None:
        self._conversations[conversation] = _Conversation({member: _Shown() for member in members})

    def leave(self, user_id: str) -> None:
        """The user was sent away for good: it need not receive anything any more."""
        for conversation in self._conversations.values():
            conversation.shown.pop(user_id, None)

    # --- what it is told

    def sent(self, conversation: str, message: int) -> None:
        self._conversations[conversation].sent.add(message)

    def acked(self, conversation: str, message: int) -> None:
        self._conversations[conversation].acked.add(message)

    def shown(self, conversation: str, user_id: str, seq: int, message: int | None) -> None:
        """A client hands a message to its user. None: one that is not of this run, and has a seq all the same."""
        known = self._conversations[conversation]
        shown = known.shown.get(user_id)
        if shown is None:
            return
        if seq != shown.last + 1:
            self._shown_out_of_order += 1
        shown.last = seq
        if message is None:
            return
        if message in shown.messages:
            self._shown_twice += 1
        shown.messages.add(message)

    def stored(self, conversation: str, seq: int, message: int | None) -> None:
        """The store has it. Told once for each row, in the order in which the history has them."""
        known = self._conversations[conversation]
        if seq != known.last_stored + 1:
            self._stored_out_of_order += 1
        known.last_stored = seq
        if message is not None:
            known.stored[message] += 1

    def connection_ended(self, counts: FrameCounts) -> None:
        self._frames.add(counts)

    # --- what it says

    @property
    def outstanding(self) -> int:
        """Acked messages that members have not been shown yet, once for each member."""
        return sum(
            len(conversation.acked - shown.messages)
            for conversation in self._conversations.values()
            for shown in conversation.shown.values()
        )

    def verdict(self) -> Verdict:
        """To be asked once the store was read back."""
        every = self._conversations.values()
        return Verdict(
            unacked=sum(len(conversation.sent - conversation.acked) for conversation in every),
            not_stored=sum(map(_not_stored, every)),
            not_received=sum(map(_not_received, every)),
            stored_twice=sum(conversation.stored.total() - len(conversation.stored) for conversation in every),
            shown_twice=self._shown_twice,
            pushed_twice=self._frames.twice,
            stored_out_of_order=self._stored_out_of_order,
            shown_out_of_order=self._shown_out_of_order,
            pushed_out_of_order=self._frames.out_of_order,
            skipped=self._frames.skipped,
        )


def _not_stored(conversation: _Conversation) -> int:
    safe = conversation.acked.union(*(shown.messages for shown in conversation.shown.values()))
    return len(safe - conversation.stored.keys())


def _not_received(conversation: _Conversation) -> int:
    due = conversation.acked & conversation.stored.keys()
    return sum(len(due - shown.messages) for shown in conversation.shown.values())
