"""CatchUp: what one connection is given from the store: the login's backlog, and what was passed by later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from kama.protocol import Behind, SystemFrame
from kama.server.message_back import MessageBack
from kama.server.pushed import Pushed

_PAGE = 100
_POSITIONS_MAX = 1000


class Backlog(Protocol):
    """What a connection reads from the store."""

    async def positions(self, user_id: str) -> Sequence[tuple[str, int, int]]:
        """(conversation, the user's sent seq, last seq) of each of the user's conversations."""
        ...

    def positions_now(self, user_id: str) -> Sequence[tuple[str, int, int]] | None:
        """The same where it can be told without waiting; else None."""
        ...

    async def page(self, conversation: str, after_seq: int, limit: int) -> list[MessageBack]: ...


def log_in_at_once(backlog: Backlog, pushed: Pushed, user_id: str) -> SystemFrame | None:
    """What `CatchUp.log_in` gives, for a user who has been sent everything; None when that is not so, or not known
    without waiting: nothing has happened then."""
    positions = None if pushed.is_behind else backlog.positions_now(user_id)
    if positions is None or any(sent_seq < last_seq for _, sent_seq, last_seq in positions):
        return None
    for key, sent_seq, _ in positions:
        pushed.start(key, sent_seq)
    pushed.is_live = True
    return _caught_up(pushed, positions, [])


def _caught_up(pushed: Pushed, positions: Sequence[tuple[str, int, int]], behind: list[Behind]) -> SystemFrame:
    return SystemFrame(
        content="caught up" if not behind else "caught up in part: pull the rest",
        event="caught_up",
        complete=not behind,
        behind=behind,
        positions={key: max(last_seq, pushed.last(key) or 0) for key, _, last_seq in positions[:_POSITIONS_MAX]},
    )


class CatchUp:
    """Lives while a connection is behind. `write` waits until the peer takes data.

    Live messages that pass by meanwhile are kept, the newest `messages` of them and at most `size` bytes: a
    conversation in which more comes with every look into the store would otherwise never be caught up with.
    """

    def __init__(
        self,
        backlog: Backlog,
        pushed: Pushed,
        write: Callable[[MessageBack], Awaitable[None]],
        *,
        messages: int = 100,
        size: int = 1 << 20,
    ) -> None:
        self._backlog = backlog
        self._pushed = pushed
        self._write = write
        self._kept: dict[tuple[str, int], MessageBack] = {}
        self._kept_bytes = 0
        self._messages = messages
        self._size = size

    def keep(self, back: MessageBack) -> None:
        """A live message that cannot go out yet."""
        if back.seq <= (self._pushed.last(back.conversation) or 0):
            return
        self._kept[back.conversation, back.seq] = back
        self._kept_bytes += len(back.frame)
        while len(self._kept) > self._messages or self._kept_bytes > self._size:
            self._take(next(iter(self._kept)))  # the oldest is the first that the store has

    def _take(self, place: tuple[str, int]) -> MessageBack | None:
        back = self._kept.pop(place, None)
        if back is not None:
            self._kept_bytes -= len(back.frame)
        return back

    async def log_in(self, user_id: str, resume: int) -> SystemFrame:
        """What the user has not been sent, oldest first and at most `resume` of each conversation.

        Live messages go out from then on; the frame that says so is to be the next thing that is written.
        """
        positions = await self._backlog.positions(user_id)
        for key, sent_seq, _ in positions:
            self._pushed.start(key, sent_seq)
        behind: list[Behind] = []
        for key, sent_seq, last_seq in positions:
            end = min(last_seq, sent_seq + resume)
            await self._write_stored(key, sent_seq, end)
            if end < last_seq:
                behind.append(Behind(key, end, last_seq))
                self._pushed.leave_to_pull(key, end, last_seq)
        await self.refill(user_id)
        self._pushed.is_live = True
        return _caught_up(self._pushed, positions, behind)

    async def refill(self, user_id: str) -> None:
        """Bring every conversation that is behind up to what was last offered of it."""
        while (waiting := self._pushed.next_behind()) is not None:
            key, last, target = waiting
            if key in self._pushed.joined:
                # Another connection of the user's may have been sent what this one is only offered.
                sent = [sent_seq for at, sent_seq, _ in await self._backlog.positions(user_id) if at == key]
                last = min([last, *sent])
                self._pushed.start(key, last)
            await self._write_stored(key, last, target)
            self._pushed.caught_up(key, target)

    async def _write_stored(self, key: str, after_seq: int, end: int) -> None:
        while after_seq < end:
            kept = self._take((key, after_seq + 1))
            page = [kept] if kept else await self._backlog.page(key, after_seq, min(_PAGE, end - after_seq))
            if not page:
                return
            for back in page:
                await self._write(back)
            after_seq = page[-1].seq
