"""WriteTurn: what has gathered for a connection within one turn of the loop goes out in one write."""

from __future__ import annotations

import asyncio
from typing import Protocol

_AT_ONCE = 500


class Writer(Protocol):
    def write_out(self) -> None:
        """May not raise."""
        ...


class WriteTurn:
    """The connections of one node that have something to write, called back once the loop gets to it.

    A message to thousands is written to some hundreds of them in a turn: what comes in meanwhile is read between.
    """

    __slots__ = ("_is_called", "_waiting", "_written")

    def __init__(self) -> None:
        self._waiting: list[Writer] = []
        self._written: set[Writer] = set()
        self._is_called = False

    def is_first(self, writer: Writer) -> bool:
        """Whether it has written nothing in this turn, and may write at once. The next asks in vain: it gathers."""
        written = self._written
        if writer in written or len(written) >= _AT_ONCE:
            return False
        written.add(writer)
        if not self._is_called:
            self._call()
        return True

    def add(self, writer: Writer) -> None:
        """Call it once, soon. Not again before it was called: it says so by asking once only."""
        self._waiting.append(writer)
        if not self._is_called:
            self._call()

    def _call(self) -> None:
        self._is_called = True
        asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_called = False
        self._written.clear()
        now, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
        if self._waiting:
            self._call()
        for writer in now:
            writer.write_out()
