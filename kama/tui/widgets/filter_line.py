"""FilterLine: where a filter is typed; what is wrong with it stands beside it while it is typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

from kama.errors import BadParameter
from kama.monitor_filter import WORDS, parse_filter
from kama.tui.cells import clean

_HINT = f"user:U12 node=n1 queue>80 idle>30s !term {' '.join(WORDS)}"


class FilterLine(Horizontal):
    """Hidden until `open`; Enter applies and closes, Escape closes."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close", "Leave the filter", show=False)]

    @dataclass
    class Applied(Message):
        """A filter that can be read; empty: no filter."""

        text: str

    def compose(self) -> ComposeResult:
        yield Label("/", markup=False)
        yield Input(placeholder=_HINT, compact=True, max_length=500)
        yield Label("", id="problem", markup=False)

    def on_mount(self) -> None:
        self.display = False

    def open(self, text: str) -> None:
        self.display = True
        field = self.query_one(Input)
        field.value = clean(text)
        field.focus()

    def action_close(self) -> None:
        self.display = False
        self.screen.focus_next("LiveTable")

    @on(Input.Changed)
    def _check(self, event: Input.Changed) -> None:
        event.stop()
        self.query_one("#problem", Label).update(self._problem(event.value))

    @on(Input.Submitted)
    def _apply(self, event: Input.Submitted) -> None:
        event.stop()
        if not self._problem(event.value):
            self.action_close()
            self.post_message(self.Applied(event.value.strip()))

    def _problem(self, text: str) -> str:
        try:
            parse_filter(text)
        except BadParameter as error:
            return clean(error.message)
        return ""
