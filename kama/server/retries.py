"""Retries: which message a client_msg_id already is, asked before a message is acknowledged ahead of its storing.

A broker that keeps messages durably itself acknowledges them before the store has seen them. The store still drops
what comes twice, but a retry must also be acknowledged with the id that its first try got. What this node has taken
lately it remembers; the rest it asks the store for, all that gathered meanwhile in one query.

What is left: a first try that another node took and nobody has stored yet. Its retry is stored and shown once like any
other, but acknowledged with an id of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from cachetools import LRUCache

from kama.server.tasks import cancel, spawn
from kama.server.traffic import HighMark

log = structlog.get_logger("kama.retries")

_REMEMBERED = 50_000
_PATIENCE = 1.0

Key = tuple[str, str]


class Retries:
    """`look_up` gives the ids that are stored under (sender, client_msg_id)."""

    def __init__(self, look_up: Callable[[Sequence[Key]], Awaitable[Mapping[Key, int]]]) -> None:
        self._look_up = look_up
        self._taken: LRUCache[Key, int] = LRUCache(_REMEMBERED)
        self._asked: dict[Key, asyncio.Future[int | None]] = {}
        self._wake = asyncio.Event()
        self.mark = HighMark()
        self._task: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """Look-ups that wait for the store's next answer."""
        return len(self._asked)

    async def start(self) -> None:
        self._task = spawn(self._answer(), name="retries")

    async def close(self) -> None:
        await cancel(self._task)

    def remember(self, key: Key, uuid: int) -> None:
        """This node has taken the message under this id."""
        self._taken[key] = uuid

    async def find(self, key: Key) -> int | None:
        """The id that the message has already; None for one that is new, or while the store does not answer."""
        known = self._taken.get(key)
        if known is not None:
            return known
        future = self._asked.get(key)
        if future is None:
            future = self._asked[key] = asyncio.get_running_loop().create_future()
            self._wake.set()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(future)
        except TimeoutError:
            return None

    async def _answer(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.mark.see(self.depth)
            asked, self._asked = self._asked, {}
            try:
                found = await self._look_up(list(asked))
            except Exception as error:
                log.warning("store not asked for retries: they count as new", count=len(asked), error=repr(error))
                found = {}
            for key, future in asked.items():
                if not future.done():
                    future.set_result(found.get(key))
