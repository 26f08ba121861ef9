"""What a connection reads from the store: where its user is, and the messages past that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kama.server.message_back import MessageBack, message_back
from kama.server.store.messages import MessageStore
from kama.server.store.progress import ProgressStore


class StoreBacklog:
    """`marked(user_id)`: what the user was sent a moment ago, and the store does not know of yet."""

    def __init__(
        self, messages: MessageStore, progress: ProgressStore, marked: Callable[[str], Mapping[str, int]]
    ) -> None:
        self._messages = messages
        self._progress = progress
        self._marked = marked

    async def positions(self, user_id: str) -> Sequence[tuple[str, int, int]]:
        marked = self._marked(user_id)
        positions = await self._progress.positions(user_id)
        return [(at.conversation, max(at.sent_seq, marked.get(at.conversation, 0)), at.last_seq) for at in positions]

    async def page(self, conversation: str, after_seq: int, limit: int) -> list[MessageBack]:
        history = await self._messages.history(conversation, limit, after_seq=after_seq)
        return [message_back(conversation, message) for message in history.messages]
