"""Source: where a monitor's frames come from, whatever is behind it: a node, several, or a recording."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from kama.monitor.frames import Item
from kama.monitor_protocol import Drain, Kick, Outcome, Send, Sub, Trace, User

Request = Trace | User | Kick | Send | Drain
REQUEST_TIMEOUT = 10.0


class Source(Protocol):
    """Used as `async with source: async for item in source: store.apply(item.source, item.frame, item.at_ms)`.

    The iteration does not end by itself. What is not answered while nobody iterates stays unanswered.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[Item]: ...

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what is watched now, as they stand in the items."""
        ...

    def now_ms(self) -> int:
        """The time that the items' `at_ms` count in: Unix ms, or where a replay is."""
        ...

    async def subscribe(self, sub: Sub) -> None:
        """What to see from now on, also after each reconnect."""
        ...

    async def request(self, request: Request, *, source: str = "", timeout: float = REQUEST_TIMEOUT) -> Outcome:
        """Ask the node behind that source (empty: any that is connected) and wait for what comes of it.

        Raises CannotConnect when it is not connected or ends before it answers, TimedOut after `timeout` seconds,
        and what the node answers.
        """
        ...

    def retry_now(self) -> None:
        """Wait no longer for the next try to connect."""
        ...


def wall_ms() -> int:
    return time.time_ns() // 1_000_000
