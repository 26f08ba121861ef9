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

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Call it once, soon. Not again before it was called: it says so by asking once only."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
        self._waiting.append(writer)

    def _write(self) -> None:
        now, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
        for writer in now:
            writer.write_out()
