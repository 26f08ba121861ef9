"""TraceScreen: what became of one message, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import work
from textual.binding import BindingType
from textual.widget import Widget

from kama.errors import KamaError
from kama.monitor.store import Changes
from kama.monitor.trace import Step, Timeline, describe, timeline
from kama.monitor_protocol import FAILURES, Event, MessageTrace, Trace
from kama.tui.cells import clock, size
from kama.tui.columns import Cell, Column
from kama.tui.keys import DETAIL_KEYS
from kama.tui.screens.base import MonitorScreen
from kama.tui.widgets.event_list import type_name
from kama.tui.widgets.line import Line, Words
from kama.tui.widgets.live_table import LiveTable


def _kind(step: Step, now_ms: int) -> Cell:
    return step.event.kind, "bad" if step.event.kind in FAILURES else "strong"


def _delta(step: Step, now_ms: int) -> Cell:
    if step.delta_ms is None:
        return ""
    return f"+{step.delta_ms}ms", "warn" if step.is_slowest else ""


def _slowest(step: Step, now_ms: int) -> Cell:
    return ("◆ slowest" if step.is_slowest else "", "warn")


COLUMNS: tuple[Column[Step], ...] = (
    Column("time", "TIME", 12, lambda step, now_ms: (clock(step.event.at_ms, True), "dim")),
    Column("step", "STEP", 13, _kind),
    Column("delta", "Δ", 8, _delta, align="right"),
    Column("slowest", "", 9, _slowest, priority=2),
    Column("what", "WHAT", 40, lambda step, now_ms: describe(step.event), grow=1),
    Column("node", "NODE", 14, lambda step, now_ms: (step.event.node, "dim"), priority=1, align="tail"),
)


class TraceScreen(MonitorScreen):
    """Asks every connected node, and again while steps may still come."""

    BINDINGS: ClassVar[list[BindingType]] = DETAIL_KEYS

    def __init__(self, uuid: str) -> None:
        super().__init__()
        self.uuid = uuid
        self._timeline: Timeline | None = None
        self._problem = ""
        self._asked_ms = 0

    def body(self) -> Iterable[Widget]:
        yield Line(id="trace-head")
        yield LiveTable(COLUMNS, lambda step: step.event, hints=("asking the nodes …",), id="trace")
        yield Line(id="trace-tail")

    def draw(self, changes: Changes, now_ms: int) -> None:
        if self.feed.replay is not None:
            self._recall()
        elif not self._asked_ms or (self._is_open and now_ms - self._asked_ms >= 1000 and self.feed.is_current):
            self._asked_ms = now_ms
            self._ask()
        self._show(now_ms)

    @property
    def _is_open(self) -> bool:
        """Whether steps may still come soon."""
        found = self._timeline
        return found is None or not any(step.event.kind in ("delivered", "read", *FAILURES) for step in found.steps)

    @work(exclusive=True, group="ask", exit_on_error=False)
    async def _ask(self) -> None:
        try:
            outcomes = await self.feed.request_all(Trace, uuid=self.uuid)
        except KamaError as error:
            self._problem = error.message
            self._recall()
        else:
            traces = [outcome.trace for outcome in outcomes if outcome.trace is not None]
            if traces and not any(trace.steps for trace in traces):
                traces[0].steps = self._seen()
            self._problem = "" if traces else "no node is connected that could be asked"
            if traces:
                self._timeline = timeline(traces)
        self._show(self.feed.node_now_ms)

    def _recall(self) -> None:
        """From what was seen: a recording can be asked nothing, and a node that is gone neither."""
        steps = self._seen()
        if steps and self._timeline is None:
            self._timeline = timeline([MessageTrace(uuid=self.uuid, steps=steps)])

    def _seen(self) -> list[Event]:
        """Its steps as they came by here, where nodes have forgotten them already."""
        return [event for event in self.feed.store.events if event.uuid == self.uuid]

    def _show(self, now_ms: int) -> None:
        if not self.is_mounted:
            return
        found, table = self._timeline, self.query_one(LiveTable)
        head: list[Words] = [[("Message ", "dim"), (self.uuid, "strong")]]
        tail: list[Words] = []
        if found is not None:
            status = found.status.name.lower() if found.status is not None else "not in the store"
            what = f"{found.send_id}→{found.receive_id} {type_name(found.type)} {size(found.size)}"
            where = f"{found.conversation} #{found.seq}"
            facts = [what if found.send_id else "", where if found.conversation else "", status]
            head.append([(" · ".join(filter(None, facts)), "")])
            tail = [[(found.sentence, "good" if found.is_known else "warn")]]
            tail += [[(f"○ {missing}", "warn")] for missing in found.missing]
            table.hints = ("no step is known",)
            table.update(found.steps, now_ms)
        if self._problem:
            tail.append([(f"✖ {self._problem}", "bad")])
            table.hints = ()
        self.query_one("#trace-head", Line).show(*head)
        self.query_one("#trace-tail", Line).show(*tail)

    def id_of(self, row: object) -> str:
        return self.uuid

    def user_of(self, row: object) -> tuple[str, str]:
        return (self._timeline.send_id if self._timeline else "", "")

    def action_trace(self) -> None:
        self.monitor.ask_trace("")
