"""RowOrder: rows that stay where they are while their values change, so that one can be looked at and picked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")

RESORT_EVERY_MS = 2_000
# Whoever works with the keys looks for a row: it must not move away.
QUIET_AFTER_KEY_MS = 3_000


class RowOrder(Generic[Row]):
    """Rows in an order that is renewed every two seconds at most, not while keys are pressed, and not while locked.

    Without a `sort_by` the rows stand as they are given. `row_id` tells rows apart across updates.
    """

    def __init__(self, row_id: Callable[[Row], Any]) -> None:
        self._row_id = row_id
        self.rows: list[Row] = []
        self.locked = False
        self.sort_by: Callable[[Row], Any] | None = None
        self.descending = True
        self._sorted_ms: int | None = None
        self._key_ms: int | None = None

    def update(self, rows: Sequence[Row], now_ms: int) -> None:
        """These are the rows now."""
        if self.sort_by is None:
            if not self.locked:
                self.rows = list(rows)
        elif self._may_move(now_ms):
            self.rows = sorted(rows, key=self._key, reverse=self.descending)
            self._sorted_ms = now_ms
        else:
            self.rows = self._in_place(rows)

    def sort(self, sort_by: Callable[[Row], Any] | None, descending: bool) -> None:
        """Another order, at once: it was asked for."""
        self.sort_by, self.descending = sort_by, descending
        if sort_by is not None:
            self.rows = sorted(self.rows, key=self._key, reverse=descending)
        self._sorted_ms = None

    def touch(self, now_ms: int) -> None:
        """A key was pressed."""
        self._key_ms = now_ms

    def index_of(self, row_id: Any) -> int | None:
        return next((index for index, row in enumerate(self.rows) if self._row_id(row) == row_id), None)

    def _key(self, row: Row) -> Any:
        assert self.sort_by is not None
        return self.sort_by(row)

    def _may_move(self, now_ms: int) -> bool:
        if self.locked:
            return False
        if self._key_ms is not None and now_ms - self._key_ms < QUIET_AFTER_KEY_MS:
            return False
        return self._sorted_ms is None or not 0 <= now_ms - self._sorted_ms < RESORT_EVERY_MS

    def _in_place(self, rows: Sequence[Row]) -> list[Row]:
        new = {self._row_id(row): row for row in rows}
        kept = [new.pop(row_id) for row in self.rows if (row_id := self._row_id(row)) in new]
        return kept + list(new.values())
