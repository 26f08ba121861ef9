"""LiveTable: a table over plain rows that costs the same however many they are; only what is in view is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kama.tui.columns import GAP, Column, Row, columns_in
from kama.tui.row_order import RowOrder
from kama.tui.widgets.row_painter import Content, HeaderLine, HintLine, RowLine, RowPainter


class LiveTable(ScrollView, Generic[Row], can_focus=True):
    """Draws rows in columns below a header that stays, with a cursor that follows its row by id.

    `update` gives it the rows of a moment; `hints` are the lines that stand where there are no rows,
    `hidden` the names of columns that would tell nothing. With
    `newest_first` the rows are given newest first and a cursor on the first row stays with the newest.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Row up", show=False, id="table.up"),
        Binding("down,j", "move(1)", "Row down", show=False, id="table.down"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="table.page_up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="table.page_down"),
        Binding("home,g", "jump(0)", "First row", show=False, id="table.first"),
        Binding("end,G", "jump(-1)", "Last row", show=False, id="table.last"),
        Binding("enter", "pick", "Open the row", show=False, id="table.open"),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header", "table--cursor", "table--dim", "table--good", "table--warn", "table--bad", "table--accent",
        "table--strong",
    }  # fmt: skip

    @dataclass
    class Picked(Message):
        """Enter or a click on the row under the cursor."""

        table: LiveTable[Any]
        row: Any

        @property
        def control(self) -> LiveTable[Any]:
            return self.table

    @dataclass
    class Sorted(Message):
        """Another column, or direction, was chosen."""

        table: LiveTable[Any]
        column: str
        descending: bool

        @property
        def control(self) -> LiveTable[Any]:
            return self.table

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        row_id: Callable[[Row], Any],
        *,
        sort: str | None = None,
        hints: Sequence[str] = (),
        header: bool = True,
        newest_first: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.hints = hints
        self.hidden: frozenset[str] = frozenset()
        self.sort_column = sort
        self._row_id = row_id
        self._order: RowOrder[Row] = RowOrder(row_id)
        self._header = 1 if header else 0
        self._newest_first = newest_first
        self._now_ms = 0
        self._cursor = 0
        self._cursor_id: Any = None
        self._painter: RowPainter[Row] = RowPainter(self)
        self._drawn: dict[int, Content] = {}
        self._ready: dict[int, Content] = {}  # found out to be other than what is drawn
        self._ready_for: tuple[object, ...] = ()
        if sort is not None:
            column = self._column(sort)
            self._order.sort(column.sort_by, column.descending)

    # --- what it shows

    @property
    def rows(self) -> list[Row]:
        """As they stand, all of them."""
        return self._order.rows

    @property
    def cursor_row(self) -> Row | None:
        rows = self._order.rows
        return rows[min(self._cursor, len(rows) - 1)] if rows else None

    @property
    def locked(self) -> bool:
        return self._order.locked

    @property
    def descending(self) -> bool:
        return self._order.descending

    def update(self, rows: Sequence[Row], now_ms: int) -> None:
        """These are the rows at that moment."""
        self._now_ms = now_ms
        self._order.update(rows, now_ms)
        self._follow()
        self._resize()
        self._refresh_changed()

    def toggle_lock(self) -> bool:
        """Whether the rows now stay where they are."""
        self._order.locked = not self._order.locked
        self.refresh()
        return self._order.locked

    def sort(self, name: str, descending: bool | None = None) -> None:
        """Order by that column; the one that it is ordered by already turns round."""
        column = self._column(name)
        if column.sort_by is None:
            return
        if descending is None:
            descending = not self._order.descending if name == self.sort_column else column.descending
        self.sort_column = name
        self._order.sort(column.sort_by, descending)
        self._follow()
        self.refresh()
        self.post_message(self.Sorted(self, name, descending))

    def sort_next(self) -> None:
        """Order by the next column that is shown and can be ordered by."""
        names = [column.name for column, _ in self._layout() if column.sort_by is not None]
        if names:
            at = names.index(self.sort_column) + 1 if self.sort_column in names else 0
            self.sort(names[at % len(names)])

    def touch(self) -> None:
        """A key was pressed somewhere: rows must not move for a while."""
        self._order.touch(self._now_ms)

    def _column(self, name: str) -> Column[Row]:
        return next(column for column in self.columns if column.name == name)

    def _follow(self) -> None:
        """The cursor stays on its row, and the row where it is in view; where the row is gone, on its place."""
        rows, before = self._order.rows, self._cursor
        if not rows:
            self._cursor, self._cursor_id = 0, None
            return
        stays_on_top = self._newest_first and before == 0 and self.scroll_y == 0
        at = None if stays_on_top or self._cursor_id is None else self._order.index_of(self._cursor_id)
        self._cursor = min(before, len(rows) - 1) if at is None else at
        self._cursor_id = self._row_id(rows[self._cursor])
        if self._cursor != before and (self.scroll_y > 0 or not self._is_in_view(self._cursor)):
            self.scroll_to(y=self.scroll_y + self._cursor - before, animate=False)

    def _is_in_view(self, index: int) -> bool:
        return self.scroll_y <= index < self.scroll_y + self._room

    @property
    def _room(self) -> int:
        return max(1, self.scrollable_content_region.height - self._header)

    def _resize(self) -> None:
        size = Size(self.scrollable_content_region.width, len(self._order.rows) + self._header)
        if size != self.virtual_size:
            self.virtual_size = size

    # --- keys and mouse

    def action_move(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        self._move_to(self._cursor + by * self._room)

    def action_jump(self, index: int) -> None:
        self._move_to(index if index >= 0 else len(self._order.rows) + index)

    def action_pick(self) -> None:
        if (row := self.cursor_row) is not None:
            self.post_message(self.Picked(self, row))

    def _move_to(self, index: int) -> None:
        rows = self._order.rows
        if not rows:
            return
        self._cursor = max(0, min(index, len(rows) - 1))
        self._cursor_id = self._row_id(rows[self._cursor])
        if self._cursor < self.scroll_y:
            self.scroll_to(y=self._cursor, animate=False)
        elif not self._is_in_view(self._cursor):
            self.scroll_to(y=self._cursor - self._room + 1, animate=False)
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if self._header and offset.y == 0:
            if (name := self._column_at(offset.x)) is not None:
                self.sort(name)
            return
        index = round(self.scroll_y) + offset.y - self._header
        if index >= len(self._order.rows):
            return
        was_there = index == self._cursor
        self._move_to(index)
        if was_there:
            self.action_pick()

    def on_resize(self) -> None:
        self._resize()

    def _column_at(self, x: int) -> str | None:
        for column, width in self._layout():
            if x < width + GAP:
                return column.name
            x -= width + GAP
        return None

    # --- drawing

    def _refresh_changed(self) -> None:
        """Only the lines that say something else: what is drawn goes to a terminal that may be far away."""
        if not self._drawn or self._layout() != self._painter.columns:
            self.refresh()
            return
        width, height = self.scrollable_content_region.size
        self._ready, self._ready_for = {}, self._moment()
        for y in range(height):
            content = self._content(y)
            if self._drawn.get(y) != content:
                self._ready[y] = content
                self.refresh(Region(0, y, width, 1))

    def _moment(self) -> tuple[object, ...]:
        """What has to be the same, object by object, for contents that were found out to be good still."""
        return self._order.rows, self._now_ms, self.scroll_y, self._cursor, self.has_focus, self.hints

    def _layout(self) -> list[tuple[Column[Row], int]]:
        shown = [column for column in self.columns if column.name not in self.hidden]
        return columns_in(shown, self.scrollable_content_region.width)

    def render_lines(self, crop: Region) -> list[Strip]:
        self._painter.prepare(self._layout(), self.scrollable_content_region.width)
        if self._ready and any(one is not two for one, two in zip(self._ready_for, self._moment(), strict=True)):
            self._ready = {}
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        content = self._drawn[y] = self._ready.get(y) or self._content(y)
        return self._painter.paint(content)

    def _content(self, y: int) -> Content:
        rows = self._order.rows
        if self._header and y == 0:
            return HeaderLine(self.sort_column, self._order.descending)
        index = round(self.scroll_y) + y - self._header
        if index < len(rows):
            row, now_ms = rows[index], self._now_ms
            cells = tuple([column.cell(row, now_ms) for column, _ in self._painter.columns])
            return RowLine(cells, index == self._cursor and self.has_focus)
        if not rows and 0 <= index - 1 < len(self.hints):
            return HintLine(self.hints[index - 1])
        return HintLine()
