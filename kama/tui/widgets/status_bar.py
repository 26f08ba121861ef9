"""StatusBar: what is watched, how it is connected, and how old what is shown is."""

from __future__ import annotations

from kama.tui.look import Tone
from kama.tui.widgets.line import Line

Part = tuple[str, Tone]


class StatusBar(Line):
    """Badges first, then facts with a dot between them; what there is no room for goes from the end."""

    def show_status(self, badges: list[Part], facts: list[str], tail: str, width: int) -> None:
        """`tail`, the age, is never left out: facts go first."""
        lead = sum(len(text) + 2 for text, _ in badges)
        kept = list(facts)
        while kept and lead + len(" · ".join([*kept, tail])) > width:
            kept.pop()
        words: list[Part] = []
        for text, tone in badges:
            words += [(text, tone), ("  ", "")]
        self.show([*words, (" · ".join([*kept, tail] if tail else kept), "")])
