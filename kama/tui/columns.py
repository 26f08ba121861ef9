"""Column: what a table shows of a row; and which columns there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kama.tui.cells import Align
from kama.tui.look import Tone

Row = TypeVar("Row")
# A text, or a text and what it is.
Cell = str | tuple[str, Tone]
GAP = 1


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """`cell` gives what to show of a row at a moment in ms; `sort_by` what to order rows by, None: cannot be.

    A column of a higher `priority` is left out sooner when there is no room; `grow` is its share of room left over.
    """

    name: str
    title: str
    width: int
    cell: Callable[[Row, int], Cell]
    priority: int = 0
    grow: int = 0
    align: Align = "left"
    sort_by: Callable[[Row], Any] | None = None
    descending: bool = True


def columns_in(columns: Sequence[Column[Row]], width: int) -> list[tuple[Column[Row], int]]:
    """Which columns a table of that width shows, and how wide each is."""
    shown = list(columns)
    while len(shown) > 1 and _needed(shown) > width:
        least = max(range(len(shown)), key=lambda index: (shown[index].priority, index))
        if shown[least].priority == 0:
            break
        del shown[least]
    spare, shares = max(0, width - _needed(shown)), sum(column.grow for column in shown)
    widths = [column.width + (spare * column.grow // shares if shares else 0) for column in shown]
    return list(zip(shown, widths, strict=True))


def _needed(columns: Sequence[Column[Row]]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)
