"""Spark: one line of `label value curve`, the curve being the newest values that there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from kama.tui.cells import fit
from kama.tui.look import STEPS, to_ascii

_LABEL, _VALUE = 8, 7


def curve(values: Sequence[float], width: int, top: float | None = None) -> str:
    """The last `width` values, one cell each, against their own highest or `top`; blank where there are none yet."""
    shown = list(values[-width:]) if width > 0 else []
    highest = max(shown, default=0.0) if top is None else top
    if highest <= 0:
        cells = STEPS[1] * len(shown)
    else:
        most = len(STEPS) - 1
        cells = "".join(STEPS[max(1, min(most, round(most * value / highest)))] for value in shown)
    return cells.rjust(width)


class Spark(Widget):
    """A gauge and its past. `update` takes what it is now, in words, and the values of the seconds before."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"spark--label", "spark--value", "spark--curve"}

    def __init__(self, label: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.label = label
        self._text = "–"
        self._values: Sequence[float] = ()

    def update(self, text: str, values: Sequence[float]) -> None:
        if (text, values) != (self._text, self._values):
            self._text, self._values = text, list(values)
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.content_size.width
        if y > 0:
            return Strip.blank(width, self.rich_style)
        room = max(0, width - _LABEL - _VALUE - 2)
        parts = (
            (fit(self.label, _LABEL), "spark--label"),
            (fit(self._text, _VALUE, "right") + " ", "spark--value"),
            (curve(self._values, room) + " ", "spark--curve"),
        )
        ascii_only = getattr(self.app, "ascii_only", False)
        strip = Strip(
            [
                Segment(to_ascii(text) if ascii_only else text, self.get_component_rich_style(name))
                for text, name in parts
            ]
        )
        return strip.adjust_cell_length(width, self.rich_style).simplify()
