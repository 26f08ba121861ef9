"""VerdictBar: is it well, and if not: what, since when, and where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kama.monitor.findings import Level
from kama.monitor.rules import Verdict
from kama.tui.cells import clock, number
from kama.tui.look import Tone
from kama.tui.widgets.line import Line, Words

if TYPE_CHECKING:
    from kama.tui.feed import Feed

_LEVELS: dict[Level, tuple[str, Tone]] = {
    Level.OK: ("✔ OK", "good"),
    Level.DEGRADED: ("▲ DEGRADED", "warn"),
    Level.DOWN: ("✖ DOWN", "bad"),
}


class VerdictBar(Line):
    """One line, worst first."""

    def show_verdict(self, feed: Feed, now_ms: int, *, tiny: bool) -> None:
        """`tiny`: it is all there is, so it carries the counters as well."""
        verdict, totals = feed.verdict, feed.store.totals()
        counters = f"in {feed.rate('accepted')}/s · out {feed.rate('written')}/s"
        if tiny:
            self.show(words(verdict), [(f"{counters} · {number(totals.connections)} online", "dim")])
        elif verdict.level is Level.OK:
            self.show([*words(verdict), (f"  {counters}", "dim")])
        else:
            self.show([*words(verdict), ("  [!]", "dim")])

    def on_click(self) -> None:
        self.call_later(self.app.run_action, "cause")


def words(verdict: Verdict) -> Words:
    name, tone = _LEVELS[verdict.level]
    if not verdict.causes:
        return [(name, tone)]
    since = verdict.since_ms or 0
    causes = " · ".join(cause.text for cause in verdict.causes)
    return [(f"{name} since {clock(since)}", tone), (f" {causes}", "")]
