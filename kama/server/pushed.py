"""Pushed: what one connection has been given of each conversation, so that each seq comes once and in order.

A live message that follows on the last one goes straight out. Anything else (the login's backlog, a gap) makes the
conversation *behind*: its live messages wait in the store until the writer has read it up to them. What a login
leaves to the client to pull is a *gap*, over which the user's cursor moves only as the client fills it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kama.server.message_back import MessageBack


@dataclass(slots=True)
class _Gap:
    """The cursor stands at `at`, the client pulls up to `end`, and up to `beyond` everything after it was written."""

    at: int
    end: int
    beyond: int


@dataclass(slots=True)
class Pushed:
    """`is_live` turns true once the login's backlog is written. One loop owns it.

    `gaps`: what was left to the client to pull, by conversation. `joined`: groups of which only the store knows where
    the user's part begins; until it is asked, they are behind.
    """

    is_live: bool = False
    joined: frozenset[str] = frozenset()
    _last: dict[str, int] = field(default_factory=dict)
    _behind: dict[str, int] = field(default_factory=dict)
    gaps: dict[str, _Gap] = field(default_factory=dict)

    def last(self, conversation: str) -> int | None:
        """The last seq given to the connection; None when it was given nothing yet."""
        return self._last.get(conversation)

    def start(self, conversation: str, sent_seq: int) -> None:
        """The user's cursor, as the store has it."""
        self._last[conversation] = sent_seq
        self.joined -= {conversation}

    def take_live(self, conversation: str, seq: int) -> bool:
        """Whether a live message goes out now. If not, it was given already, or is behind and will be read."""
        last = self._last.get(conversation)
        if last is None:
            # It began after the login looked. A pair's first message is its first; who joined a group meanwhile may
            # have been passed by, as by a node that did not know yet.
            self._last[conversation] = last = seq - 1 if conversation.startswith("G") else 0
            if last:
                self.joined |= {conversation}
                self._behind[conversation] = seq
                return False
        if seq <= last:
            return False
        if not self.is_live or conversation in self._behind or seq > last + 1:
            self._behind[conversation] = max(seq, self._behind.get(conversation, 0))
            return False
        self._last[conversation] = seq
        return True

    @property
    def is_behind(self) -> bool:
        """Whether something is to be read from the store."""
        return bool(self._behind)

    def look_for(self, conversation: str, sent_seq: int, last_seq: int) -> None:
        """The store has the conversation up to `last_seq`: what of it was passed by is behind."""
        if last_seq > self._last.setdefault(conversation, 0 if not conversation.startswith("G") else sent_seq):
            self._behind[conversation] = max(last_seq, self._behind.get(conversation, 0))

    def take_stored(self, conversation: str, seq: int) -> bool:
        """Whether a message read from the store goes out now: those that were given already do not."""
        if seq <= self._last.get(conversation, 0):
            return False
        self._last[conversation] = seq
        return True

    def leave_to_pull(self, conversation: str, pushed: int, last_seq: int) -> None:
        """Catch-up ended at `pushed`; live messages go on after `last_seq`."""
        self.gaps[conversation] = _Gap(pushed, last_seq, last_seq)
        self._last[conversation] = last_seq

    def next_behind(self) -> tuple[str, int, int] | None:
        """A conversation that is behind, the last seq given of it, and the one to read up to."""
        for conversation, target in self._behind.items():
            return conversation, self._last.get(conversation, 0), target
        return None

    def caught_up(self, conversation: str, target: int) -> None:
        """It was read up to `target`; what came meanwhile keeps it behind."""
        if self._behind.get(conversation, 0) <= target:
            self._behind.pop(conversation, None)

    def written(self, back: MessageBack) -> int:
        """A message was written out: up to where everything has been now, so that the user's cursor may move there. 0:
        that is no further than before."""
        gap = self.gaps.get(back.conversation) if self.gaps else None
        if gap is None:
            return 0 if back.pulled else back.seq
        if not back.pulled:
            if back.seq <= gap.at:  # told late, for the transport still held it
                return back.seq
            gap.beyond = max(gap.beyond, back.seq)
            return 0
        if back.seq != gap.at + 1:
            return 0
        gap.at = back.seq
        if gap.at < gap.end:
            return back.seq
        del self.gaps[back.conversation]
        return gap.beyond
