"""The newest messages of the conversations that people read, in Redis or in process.

A cached conversation carries the version of the store that it equals. A reader asks the store for the version
first (one look-up by primary key) and uses the copy only if it is that one, so no race, lost task or Redis that
comes back with old data can show an old history. A change moves the copy from the version before to its own,
at a cost that does not grow with the conversation; a copy of any other version is dropped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from cachetools import TTLCache

from kama.protocol import Message
from kama.server.store.messages import History, MessageStore
from kama.server.tasks import cancel, spawn
from kama.server.traffic import HighMark

log = structlog.get_logger("kama.cache")

CACHE_TASKS = 3000
_BATCH = 200
_CONVERSATIONS = 1000


@dataclass(slots=True)
class Change:
    """What one transaction did to a conversation: new messages, or new statuses by seq."""

    conversation: str
    version: int
    messages: Sequence[Message] = ()
    statuses: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Snapshot:
    """The newest messages of a conversation, oldest first, as of `version`."""

    conversation: str
    version: int
    messages: Sequence[Message]


class CacheBackend(Protocol):
    """Where copies are kept. `available` is false while it is known to be away."""

    @property
    def available(self) -> bool: ...

    async def read(self, conversation: str) -> Snapshot | None: ...

    async def write(self, tasks: Sequence[Change | Snapshot]) -> None: ...

    async def close(self) -> None: ...


class MemoryBackend:
    """In this process: for one node without Redis."""

    available = True

    def __init__(self, ttl: float, max_messages: int) -> None:
        self._kept: TTLCache[str, tuple[int, OrderedDict[int, Message]]] = TTLCache(_CONVERSATIONS, ttl)
        self._max = max_messages

    async def read(self, conversation: str) -> Snapshot | None:
        kept = self._kept.get(conversation)
        return Snapshot(conversation, kept[0], list(kept[1].values())) if kept else None

    async def write(self, tasks: Sequence[Change | Snapshot]) -> None:
        for task in tasks:
            if isinstance(task, Snapshot):
                self._fill(task)
            else:
                self._apply(task)

    def _fill(self, snapshot: Snapshot) -> None:
        kept = self._kept.get(snapshot.conversation)
        if kept is None or kept[0] < snapshot.version:
            messages = OrderedDict((message.seq, message) for message in snapshot.messages[-self._max :])
            self._kept[snapshot.conversation] = (snapshot.version, messages)

    def _apply(self, change: Change) -> None:
        kept = self._kept.get(change.conversation)
        if kept is None or kept[0] >= change.version:
            return
        version, messages = kept
        if version != change.version - 1:
            del self._kept[change.conversation]
            return
        for message in change.messages:
            messages[message.seq] = message
        for seq, status in change.statuses.items():
            if seq in messages:
                messages[seq].status = max(status, messages[seq].status)
        while len(messages) > self._max:
            messages.popitem(last=False)
        self._kept[change.conversation] = (change.version, messages)

    async def close(self) -> None:
        self._kept.clear()


class HistoryCache:
    """The bounded task queue in front of a backend. `submit` never waits: a full queue drops the task."""

    def __init__(self, backend: CacheBackend) -> None:
        self._backend = backend
        self._tasks: list[Change | Snapshot] = []
        self._in_hand = 0
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self.mark = HighMark()
        self.dropped = 0
        self.hits = 0
        self.misses = 0

    @property
    def depth(self) -> int:
        return len(self._tasks) + self._in_hand

    @property
    def available(self) -> bool:
        return self._backend.available

    async def start(self) -> None:
        self._worker = spawn(self._work(), name="history cache")

    async def close(self) -> None:
        await cancel(self._worker)
        await self._backend.close()

    def submit(
        self,
        conversation: str,
        version: int,
        *,
        messages: Sequence[Message] = (),
        statuses: Mapping[int, int] | None = None,
    ) -> None:
        self._put(Change(conversation, version, messages, statuses or {}))

    def fill(self, conversation: str, history: History) -> None:
        self._put(Snapshot(conversation, history.version, history.messages))

    def _put(self, task: Change | Snapshot) -> None:
        if len(self._tasks) >= CACHE_TASKS or not self._backend.available:
            self.dropped += 1
            return
        self._tasks.append(task)
        self._wake.set()

    async def read(self, conversation: str, version: int) -> Sequence[Message] | None:
        """The copy, if there is one and it is of this version."""
        if not self._backend.available:
            return None
        snapshot = await self._backend.read(conversation)
        if snapshot is None or snapshot.version != version:
            self.misses += 1
            return None
        self.hits += 1
        return snapshot.messages

    async def _work(self) -> None:
        while True:
            if not self._tasks:
                self._wake.clear()
                await self._wake.wait()
                continue
            batch, self._tasks = self._tasks[:_BATCH], self._tasks[_BATCH:]
            self._in_hand = len(batch)
            await self._backend.write(batch)
            self.mark.see(self.depth)
            self._in_hand = 0


class HistoryReader:
    """History as clients ask for it: from the cache when the copy is current, else from the store."""

    def __init__(self, store: MessageStore, cache: HistoryCache, max_messages: int) -> None:
        self._store = store
        self._cache = cache
        self._max = max_messages

    async def read(
        self, conversation: str, limit: int, *, before_seq: int | None = None, after_seq: int | None = None
    ) -> Sequence[Message]:
        last_seq, version = await self._store.head(conversation)
        if not last_seq:
            return []
        kept = await self._cache.read(conversation, version)
        if kept is not None:
            found = _window(kept, limit, before_seq, after_seq)
            if found is not None:
                return found
        else:
            newest = await self._store.history(conversation, self._max)
            self._cache.fill(conversation, newest)
            found = _window(newest.messages, limit, before_seq, after_seq)
            if found is not None:
                return found
        history = await self._store.history(conversation, limit, before_seq=before_seq, after_seq=after_seq)
        return history.messages


def _window(
    kept: Sequence[Message], limit: int, before_seq: int | None, after_seq: int | None
) -> Sequence[Message] | None:
    """The part of the newest messages that was asked for; None when older ones are needed to answer."""
    if not kept:
        return None
    reaches_start = kept[0].seq == 1
    if after_seq is not None and after_seq + 1 < kept[0].seq:
        return None
    found = [
        message
        for message in kept
        if (before_seq is None or message.seq < before_seq) and (after_seq is None or message.seq > after_seq)
    ]
    if after_seq is not None:
        return found[:limit]
    if len(found) < limit and not reaches_start:
        return None
    return found[-limit:]
