"""LiveTable: a table over plain rows that costs the same however many they are; only what is in view is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from kama.tui.cells import Align, clean, fit
from kama.tui.look import Tone, to_ascii
from kama.tui.row_order import RowOrder

Row = TypeVar("Row")
# A text, or a text and what it is.
Cell = str | tuple[str, Tone]
_GAP = 1


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
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)


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
        self._drawn: dict[int, Strip] = {}
        self._base = Style.null()
        self._shown: list[tuple[Column[Row], int]] = []
        self._tones: dict[Tone, Style] = {}
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
            if x < width + _GAP:
                return column.name
            x -= width + _GAP
        return None

    # --- drawing

    def _refresh_changed(self) -> None:
        """Only the lines that look another way: what is drawn goes to a terminal that may be far away."""
        if not self._drawn:
            self.refresh()
            return
        self._prepare()
        width, height = self.scrollable_content_region.size
        for y in range(height):
            if self._drawn.get(y) != self._strip(y):
                self.refresh(Region(0, y, width, 1))

    def _layout(self) -> list[tuple[Column[Row], int]]:
        shown = [column for column in self.columns if column.name not in self.hidden]
        return columns_in(shown, self.scrollable_content_region.width)

    def render_lines(self, crop: Region) -> list[Strip]:
        self._prepare()
        return super().render_lines(crop)

    def _prepare(self) -> None:
        """What all lines share: to find it out for each would cost more than to draw it."""
        self._base = self.rich_style
        self._shown = self._layout()
        self._tones.clear()

    def render_line(self, y: int) -> Strip:
        strip = self._drawn[y] = self._strip(y)
        return strip

    def _strip(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        rows = self._order.rows
        if self._header and y == 0:
            return self._header_line(width)
        index = round(self.scroll_y) + y - self._header
        if index < len(rows):
            return self._row_line(index, rows[index], width)
        if not rows and 0 <= index - 1 < len(self.hints):
            return self._line([(f"  {self.hints[index - 1]}", self._style("dim"))], width, self._base)
        return Strip.blank(width, self._base)

    def _header_line(self, width: int) -> Strip:
        style = self.get_component_rich_style("table--header")
        parts = []
        for column, room in self._shown:
            title = column.title
            if column.name == self.sort_column:
                title += " ▾" if self._order.descending else " ▴"
                title = title if len(title) <= room else title.replace(" ", "")
            parts.append((fit(title, room, column.align, ""), style))
        return self._line(self._spaced(parts, style), width, style)

    def _row_line(self, index: int, row: Row, width: int) -> Strip:
        base = self._base
        parts = []
        for column, room in self._shown:
            cell = column.cell(row, self._now_ms)
            text, tone = cell if isinstance(cell, tuple) else (cell, "")
            parts.append((self._fitted(text, room, column.align), self._style(tone) if tone else base))
        strip = self._line(self._spaced(parts, base), width, base)
        if index == self._cursor and self.has_focus:
            strip = strip.apply_style(self.get_component_rich_style("table--cursor"))
        return strip

    def _fitted(self, text: str, room: int, align: Align) -> str:
        if self.is_ascii:
            return fit(to_ascii(clean(text)), room, align, "~")
        return fit(text, room, align)

    def _spaced(self, parts: list[tuple[str, Style]], base: Style) -> list[tuple[str, Style]]:
        spaced: list[tuple[str, Style]] = []
        for part in parts:
            spaced += [part, (" " * _GAP, base)]
        return spaced[:-1]

    def _line(self, parts: list[tuple[str, Style]], width: int, base: Style) -> Strip:
        if self.is_ascii:
            parts = [(to_ascii(text), style) for text, style in parts]
        return Strip([Segment(text, style) for text, style in parts]).adjust_cell_length(width, base).simplify()

    def _style(self, tone: Tone) -> Style:
        if tone not in self._tones:
            self._tones[tone] = self.get_component_rich_style(f"table--{tone}")
        return self._tones[tone]

    @property
    def is_ascii(self) -> bool:
        return bool(getattr(self.app, "ascii_only", False))
