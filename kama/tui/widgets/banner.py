"""Banner: says above everything else that what is below is not of now, why, and what mends it."""

from __future__ import annotations

from kama.tui.widgets.line import Line, Words


class Banner(Line):
    """Takes no room while there is nothing to say."""

    def show(self, *lines: Words) -> None:
        self.display = bool(lines)
        super().show(*lines)


class Welcome(Line):
    """The whole screen, until the first data comes."""
