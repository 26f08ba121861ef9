"""StatusWriter: what was written to sockets becomes message status and cursors, a batch at a time.

A batch forms by itself: for a moment, and while one transaction commits, the next marks gather, one entry per message
and one per (user, conversation) however often they are marked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from kama.backoff import Backoff
from kama.protocol import MessageStatus, StatusFrame, encode
from kama.server.cache import HistoryCache
from kama.server.events import Journal
from kama.server.message_back import MessageBack
from kama.server.store.database import is_transient
from kama.server.store.progress import Progress, ProgressStore, StatusChange, sent_to
from kama.server.tasks import cancel, spawn
from kama.server.traffic import HighMark, StatusName

log = structlog.get_logger("kama.status")

_RETRY_FIRST = 0.05
_RETRY_MAX = 5.0
_PATIENCE = 10.0
_NAMES: Mapping[MessageStatus, StatusName] = {
    MessageStatus.SENT: "sent",
    MessageStatus.DELIVERED: "delivered",
    MessageStatus.READ: "read",
}


class StatusWriter:
    """`notify(user_id, frame)` tells a sender, on whatever connections it has. `gather`: for so many seconds marks come
    together before a batch begins."""

    def __init__(
        self,
        store: ProgressStore,
        cache: HistoryCache,
        notify: Callable[[str, bytes], None],
        journal: Journal | None = None,
        *,
        gather: float = 0.0,
    ) -> None:
        self._store = store
        self._cache = cache
        self._notify = notify
        self._journal = journal or Journal()
        self._gather = gather
        self._next = Progress()
        self._in_hand = Progress()
        self.mark = HighMark()
        self.commit_ms = 0.0  # how long the last batch took
        self._wake = asyncio.Event()
        self._is_idle = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """Marks not yet committed."""
        return self._next.marks + self._in_hand.marks

    def mark_sent(self, user_id: str, back: MessageBack, up_to: int, connection: str = "") -> None:
        """`back` was written to a socket of `user_id`, and everything of its conversation up to this seq (0: not even
        what came before it)."""
        progress = self._next
        # The sender's own echo does not count, but a note to oneself has no other receiver.
        if back.unsent and (user_id != back.send_id or user_id == back.receive_id):
            back.unsent = False
            progress.sent.append(sent_to(user_id, back, not up_to))
            self._journal.written(back.uuid, user_id, connection, back.accepted_ms, back.live)
        if up_to:
            seqs = progress.pushed.get(back.conversation)
            if seqs is None:
                progress.pushed[back.conversation] = {user_id: up_to}
            elif seqs.get(user_id, 0) < up_to:
                seqs[user_id] = up_to
        if self._is_idle:
            self._wake_up()

    def marked(self, user_id: str) -> Callable[[str], int]:
        """Tells up to which seq the user was sent a conversation, as far as that is not committed now."""
        marks = (self._in_hand, self._next)

        def sent_seq(conversation: str) -> int:
            return max(progress.pushed_to(user_id, conversation) for progress in marks)

        return sent_seq

    def mark_received(self, user_id: str, conversation: str, seq: int, status: MessageStatus) -> None:
        """A receipt: `user_id` has received or read everything of the conversation up to `seq`."""
        key = (user_id, conversation, status)
        self._next.receipts[key] = max(seq, self._next.receipts.get(key, 0))
        # Who has read has received, and who has received was sent.
        seqs = self._next.cursors.setdefault((user_id, conversation), [0, 0, 0])
        for level in range(status):
            seqs[level] = max(seqs[level], seq)
        self._wake_up()

    def _wake_up(self) -> None:
        self._is_idle = False
        self._wake.set()

    async def start(self) -> None:
        self._task = spawn(self._run(), name="status writer")

    async def close(self) -> None:
        """Commit what is marked, if the store takes it within some seconds, then end."""
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_PATIENCE)
            await cancel(self._task)

    async def _run(self) -> None:
        while True:
            if not self._next:
                if self._closed:
                    return
                self._wake.clear()
                self._is_idle = True
                await self._wake.wait()
                continue
            if self._gather and not self._closed:
                await asyncio.sleep(self._gather)
            progress, self._next = self._next, Progress()
            self._in_hand = progress
            started = time.perf_counter()
            await self._commit(progress)
            self.commit_ms = (time.perf_counter() - started) * 1000
            self.mark.see(self.depth)
            self._in_hand = Progress()

    async def _commit(self, progress: Progress) -> None:
        backoff = Backoff(_RETRY_FIRST, _RETRY_MAX)
        while True:
            try:
                changes, versions = await self._store.apply(progress)
                break
            except Exception as error:
                if not is_transient(error):
                    # Sooner some statuses too low than all statuses for ever stuck behind this batch.
                    log.error("status batch cannot be stored: dropped", marks=len(progress.sent), exc_info=error)
                    return
                log.warning("status batch not stored: trying again", error=repr(error), delay=backoff.delay)
                if self._closed:
                    return  # a status that is behind is caught up by the next login; shutdown is not held up
                await asyncio.sleep(backoff.take())
        self._note(changes)
        self._update_cache(changes, versions)
        self._tell_senders(changes)

    def _note(self, changes: Iterable[StatusChange]) -> None:
        for status, name in _NAMES.items():
            risen = [change for change in changes if change.status is status]
            if risen:
                self._journal.traffic.risen(name, len(risen))
                self._journal.risen(name, risen)

    def _update_cache(self, changes: Iterable[StatusChange], versions: Mapping[str, int]) -> None:
        if not versions:
            return
        by_conversation: dict[str, dict[int, int]] = {}
        for change in changes:
            seqs = by_conversation.setdefault(change.conversation, {})
            seqs[change.seq] = max(change.status, seqs.get(change.seq, 0))
        for conversation, version in versions.items():
            self._cache.submit(conversation, version, statuses=by_conversation[conversation])

    def _tell_senders(self, changes: Iterable[StatusChange]) -> None:
        """One frame per sender, conversation, status and user: up to the highest seq that rose. What rose alone has one
        of its own."""
        highest: dict[tuple[str, str, MessageStatus, str, int], int] = {}
        for change in changes:
            if change.has_client_id:
                after = change.seq - 1 if change.alone else 0
                key = (change.send_id, change.conversation, change.status, change.user_id, after)
                highest[key] = max(change.seq, highest.get(key, 0))
        at = time.time_ns() // 1_000_000
        for (send_id, conversation, status, user_id, after), seq in highest.items():
            frame = StatusFrame(conversation=conversation, seq=seq, status=_NAMES[status], user_id=user_id, at=at)
            if after:
                frame.after = after
            self._notify(send_id, encode(frame))
