"""RowPainter: from what a line of a table says to how it looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from kama.tui.cells import Align, clean, fit
from kama.tui.columns import GAP, Cell, Column, Row
from kama.tui.look import Tone, to_ascii


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """By which column the rows are in order, and which way."""

    sort: str | None
    descending: bool


@dataclass(frozen=True, slots=True)
class RowLine:
    """A row's cells, one for each column that is shown."""

    cells: tuple[Cell, ...]
    is_cursor: bool


@dataclass(frozen=True, slots=True)
class HintLine:
    """What stands where there is no row; empty: nothing."""

    text: str = ""


Content = HeaderLine | RowLine | HintLine


class RowPainter(Generic[Row]):
    """Paints lines for a table that has the styles `table--header`, `table--cursor` and one for each tone."""

    def __init__(self, table: Widget) -> None:
        self.columns: list[tuple[Column[Row], int]] = []
        self._table = table
        self._width = 0
        self._base = Style.null()
        self._tones: dict[Tone, Style] = {}
        self._ascii_only = False

    def prepare(self, columns: list[tuple[Column[Row], int]], width: int) -> None:
        """Before each pass, the columns with their widths and the width of a line: what all lines share costs more to
        find out than one costs to paint."""
        self.columns = columns
        self._width = width
        self._base = self._table.rich_style
        self._ascii_only = bool(getattr(self._table.app, "ascii_only", False))
        self._tones.clear()

    def paint(self, content: Content) -> Strip:
        match content:
            case HeaderLine():
                return self._header(content)
            case RowLine():
                return self._row(content)
            case HintLine():
                return self._line([(self._plain(f"  {content.text}"), self._style("dim"))], self._base)

    def _header(self, content: HeaderLine) -> Strip:
        style = self._table.get_component_rich_style("table--header")
        titles = []
        for column, room in self.columns:
            title = column.title
            if column.name == content.sort:
                title += " ▾" if content.descending else " ▴"
                title = title if len(title) <= room else title.replace(" ", "")
            titles.append(fit(title, room, column.align, ""))
        return self._line([(self._plain((" " * GAP).join(titles)), style)], style)

    def _row(self, content: RowLine) -> Strip:
        """Neighbours of one style become one segment: each costs on its way to the terminal."""
        base, gap = self._base, " " * GAP
        parts: list[tuple[str, Style]] = []
        run, run_style = "", base
        for (column, room), cell in zip(self.columns, content.cells, strict=True):
            text, tone = cell if isinstance(cell, tuple) else (cell, "")
            style = self._style(tone) if tone else base
            if style is not run_style:
                parts.append((run, run_style))
                run, run_style = "", style
            run += self._fitted(text, room, column.align)
            if run_style is not base:
                parts.append((run, run_style))
                run, run_style = "", base
            run += gap
        strip = self._line([*parts, (run[:-GAP], run_style)], base)
        if content.is_cursor:
            strip = strip.apply_style(self._table.get_component_rich_style("table--cursor"))
        return strip

    def _fitted(self, text: str, room: int, align: Align) -> str:
        if self._ascii_only:
            return fit(to_ascii(clean(text)), room, align, "~")
        return fit(text, room, align)

    def _plain(self, text: str) -> str:
        return to_ascii(text) if self._ascii_only else text

    def _line(self, parts: list[tuple[str, Style]], base: Style) -> Strip:
        segments = [Segment(text, style) for text, style in parts if text]
        return Strip(segments).adjust_cell_length(self._width, base)

    def _style(self, tone: Tone) -> Style:
        if tone not in self._tones:
            self._tones[tone] = self._table.get_component_rich_style(f"table--{tone}")
        return self._tones[tone]
