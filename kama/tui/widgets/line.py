"""Line: a widget that is one or more lines of words, each word with what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from kama.tui.cells import clean, fit
from kama.tui.look import Tone, to_ascii

Words = Sequence[tuple[str, Tone]]
# Wider than any terminal.
_LONGEST = 1_000


class Line(Widget):
    """`show` takes lines of words; a line that is too long ends in an ellipsis. Words are cleaned and never parsed."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "line--dim", "line--good", "line--warn", "line--bad", "line--accent", "line--strong",
    }  # fmt: skip

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: Sequence[Words] = ()

    def show(self, *lines: Words) -> None:
        if lines != self._lines:
            grew = len(lines) != len(self._lines)
            self._lines = lines
            self.refresh(layout=grew)

    @property
    def plain(self) -> str:
        """The words without what they are."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return len(self._lines)

    def render_line(self, y: int) -> Strip:
        width, base = self.content_size.width, self.rich_style
        if y >= len(self._lines):
            return Strip.blank(width, base)
        ascii_only = bool(getattr(self.app, "ascii_only", False))
        segments, left = [], width
        for text, tone in self._lines[y]:
            text = to_ascii(clean(text)) if ascii_only else clean(text)
            segment = Segment(text, self.get_component_rich_style(f"line--{tone}") if tone else base)
            if segment.cell_length > left:
                segments.append(Segment(fit(text, left, ellipsis=self._ellipsis(text, ascii_only)), segment.style))
                break
            segments.append(segment)
            left -= segment.cell_length
        return Strip(segments).adjust_cell_length(width, base).simplify()

    def _ellipsis(self, text: str, ascii_only: bool) -> str:
        """A rule goes on for ever: nothing is missing where it ends."""
        if text.endswith(("──", "--")):
            return ""
        return "~" if ascii_only else "…"


def facts_in(facts: Sequence[str], width: int, tone: Tone = "") -> list[Words]:
    """The facts with ` · ` between, in as many lines of that width as they need."""
    lines: list[str] = []
    for fact in facts:
        if lines and cell_len(longer := f"{lines[-1]} · {fact}") <= width:
            lines[-1] = longer
        else:
            lines.append(fact)
    return [[(line, tone)] for line in lines]


class Title(Line):
    """One line of words, drawn out to the right end."""

    def say(self, text: str, tone: Tone = "dim") -> None:
        """`─ text ────`."""
        self.show([(f"─ {text} ", tone), ("─" * _LONGEST, tone)])
