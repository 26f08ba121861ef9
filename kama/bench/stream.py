"""Stream: the messages of one conversation, in a closed loop or at a rate."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator, Sequence
from time import perf_counter

from kama.bench.plan import Talk
from kama.bench.tally import Tally
from kama.bench.user import User


class Stream:
    """At most `window` messages are under way. With an `interval` (seconds) each is due at its own time, whatever
    became of those before, and its latency counts from then; without, the next one goes when there is room.

    `numbers` gives each message of the run its own. `phase` in seconds: when the first one is due.
    """

    def __init__(
        self,
        talk: Talk,
        senders: Sequence[User],
        tally: Tally,
        numbers: Iterator[int],
        window: int,
        interval: float | None,
        phase: float,
    ) -> None:
        self._talk = talk
        self._senders = senders
        self._tally = tally
        self._numbers = numbers
        self._slots = asyncio.Semaphore(window)
        self._interval = interval
        self._phase = phase
        self._posts: dict[asyncio.Task[None], User] = {}
        self._started = 0

    @property
    def under_way(self) -> int:
        """Messages not acked yet, of senders that may still get an ack."""
        return sum(sender.dismissed is None for sender in self._posts.values())

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Posts in `tasks` until cancelled, or until all senders were sent away."""
        start = perf_counter() + self._phase
        for number in itertools.count():
            due = None if self._interval is None else start + number * self._interval
            if due is not None:
                await asyncio.sleep(due - perf_counter())
            await self._slots.acquire()
            sender = self._sender(number)
            if sender is None:
                return
            await sender.turn()
            self._started += 1
            post = tasks.create_task(self._post(sender, perf_counter() if due is None else due))
            self._posts[post] = sender
            post.add_done_callback(self._posts.pop)

    def count_unsent(self, seconds: float) -> int:
        """Messages that were due in this time since the start, and for which there was no room."""
        if self._interval is None:
            return 0
        return max(0, math.ceil((seconds - self._phase) / self._interval) - self._started)

    def give_up(self) -> None:
        """Wait for no ack any more."""
        for post in self._posts:
            post.cancel()

    def _sender(self, number: int) -> User | None:
        here = [sender for sender in self._senders if sender.dismissed is None]
        return here[number % len(here)] if here else None

    async def _post(self, sender: User, due: float) -> None:
        try:
            await sender.post(self._talk.receive_id, self._talk.conversation, next(self._numbers), due)
        finally:
            self._slots.release()
