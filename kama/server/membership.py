"""Who is in a group, from memory: asked for each group message, so it may not cost a query."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cachetools import TTLCache

_GROUPS = 10_000
# Other nodes say when a group has changed; should their word ever be lost, what is known is not wrong for long.
_TTL = 60.0


class Membership:
    """Caches member sets. While a group changes, and ever after, nobody is told the members of before.

    `load` reads the store: a frozenset of user ids, or None when there is no such group.
    """

    def __init__(self, load: Callable[[str], Awaitable[frozenset[str] | None]]) -> None:
        self._load = load
        self._known: TTLCache[str, frozenset[str]] = TTLCache(_GROUPS, _TTL)
        self._changing: Counter[str] = Counter()
        self._changed = 0

    def known(self, group_id: str) -> frozenset[str] | None:
        """The members, as far as memory has them now; None says nothing about the group."""
        return self._known.get(group_id)

    async def members(self, group_id: str) -> frozenset[str] | None:
        known = self._known.get(group_id)
        if known is not None:
            return known
        changed = self._changed
        loaded = await self._load(group_id)
        if loaded is not None and not self._changing[group_id] and changed == self._changed:
            self._known[group_id] = loaded
        return loaded

    def forget(self, group_id: str) -> None:
        """The group was changed elsewhere."""
        self._known.pop(group_id, None)
        self._changed += 1

    @asynccontextmanager
    async def change(self, group_id: str) -> AsyncIterator[None]:
        """Around the transaction that changes the group."""
        self._changing[group_id] += 1
        self._known.pop(group_id, None)
        try:
            yield
        finally:
            self._changing[group_id] -= 1
            if not self._changing[group_id]:
                del self._changing[group_id]
            self._known.pop(group_id, None)
            self._changed += 1
