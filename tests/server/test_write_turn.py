"""WriteTurn: who has something to write is called once it is the loop's turn, and not thousands in one."""

from __future__ import annotations

import asyncio

from kama.server import write_turn
from kama.server.write_turn import WriteTurn


class Writer:
    def __init__(self, again: WriteTurn | None = None) -> None:
        self.calls = 0
        self._again = again

    def write_out(self) -> None:
        self.calls += 1
        if self._again is not None:
            self._again.add(self)
            self._again = None


async def test_whoever_asked_is_called_once_in_the_next_turn() -> None:
    turn, writers = WriteTurn(), [Writer() for _ in range(3)]
    for writer in writers:
        turn.add(writer)
    assert [writer.calls for writer in writers] == [0, 0, 0]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [writer.calls for writer in writers] == [1, 1, 1]


async def test_who_asks_while_it_is_called_is_called_again() -> None:
    turn = WriteTurn()
    turn.add(writer := Writer(again=turn))
    for _ in range(3):
        await asyncio.sleep(0)
    assert writer.calls == 2


async def test_of_very_many_only_some_are_called_in_one_turn() -> None:
    turn, writers = WriteTurn(), [Writer() for _ in range(write_turn._AT_ONCE + 1)]
    for writer in writers:
        turn.add(writer)
    await asyncio.sleep(0)
    assert sum(writer.calls for writer in writers) == write_turn._AT_ONCE
    await asyncio.sleep(0)
    assert [writer.calls for writer in writers] == [1] * len(writers)
