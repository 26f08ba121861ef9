"""What a connection reads from the store: where its user is, and the messages past that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kama.server.message_back import MessageBack, message_back
from kama.server.store.messages import MessageStore
from kama.server.store.progress import Position, ProgressStore


class StoreBacklog:
    """`marked(user_id)` tells up to which seq the user was just sent a conversation: the store may not know yet."""

    def __init__(
        self, messages: MessageStore, progress: ProgressStore, marked: Callable[[str], Callable[[str], int]]
    ) -> None:
        self._messages = messages
        self._progress = progress
        self._marked = marked

    async def positions(self, user_id: str) -> Sequence[tuple[str, int, int]]:
        marked = self._marked(user_id)
        positions = await self._progress.positions(user_id)
        return _plain(positions, marked)

    def positions_now(self, user_id: str) -> Sequence[tuple[str, int, int]] | None:
        positions = self._progress.positions_now(user_id)
        return None if positions is None else _plain(positions, self._marked(user_id))

    async def page(self, conversation: str, after_seq: int, limit: int) -> list[MessageBack]:
        history = await self._messages.history(conversation, limit, after_seq=after_seq)
        return [message_back(conversation, message) for message in history.messages]


def _plain(positions: Sequence[Position], marked: Callable[[str], int]) -> list[tuple[str, int, int]]:
    return [(at.conversation, max(at.sent_seq, marked(at.conversation)), at.last_seq) for at in positions]
