"""Forms for what is done to nodes and users. Data keeps flowing behind them; Escape leaves them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from kama.errors import KamaError
from kama.tui.cells import clean


@dataclass(frozen=True, slots=True)
class Field:
    """`check` says what is wrong with a text; empty: nothing."""

    name: str
    label: str
    value: str = ""
    placeholder: str = ""
    check: Callable[[str], str] = lambda text: ""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it, in words; `uuid`: of a message that can be traced from there."""

    text: str
    uuid: str = ""


# Does it. Raises KamaError.
Submit = Callable[[dict[str, str]], Awaitable[Done]]


class Form(ModalScreen[str]):
    """Enter goes to the next field, and in the last one does it; what came of it is shown until Enter or Escape.

    `about` describes in lines what is going to happen. Texts of others are cleaned here and never parsed. Its result
    is the uuid of a message that is to be traced; or, where there is nothing to `submit`, what the last field has.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("enter", "leave", "Leave", show=False),
        Binding("t", "trace", "Trace the message", show=False),
    ]

    def __init__(
        self, title: str, about: Sequence[str], fields: Sequence[Field], submit: Submit | None, verb: str
    ) -> None:
        super().__init__()
        self._title = title
        self._about = about
        self._fields = fields
        self._submit = submit
        self._verb = verb
        self._done: Done | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="card"):
            yield Label(clean(self._title), classes="card-title", markup=False)
            for line in self._about:
                yield Label(clean(line), markup=False)
            for field in self._fields:
                yield Label(clean(field.label), classes="card-label", markup=False)
                yield Input(clean(field.value), placeholder=field.placeholder, id=field.name, compact=True)
            yield Label("", id="outcome", markup=False)
            yield Label(f"Enter: {self._verb} · Esc: leave", classes="card-keys", markup=False)

    def on_mount(self) -> None:
        """Always to the first field, whatever it holds: who knows the form can type without looking."""
        self.query(Input).first().focus()

    @property
    def outcome(self) -> str:
        return str(self.query_one("#outcome", Label).content)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_trace(self) -> None:
        if self._done is not None and self._done.uuid:
            self.dismiss(self._done.uuid)

    @on(Input.Submitted)
    def _next(self, event: Input.Submitted) -> None:
        event.stop()
        inputs = list(self.query(Input))
        at = inputs.index(event.input)
        if problem := self._fields[at].check(event.value.strip()):
            self._tell(problem, "bad")
        elif event.input is not inputs[-1]:
            inputs[at + 1].focus()
        else:
            self._check_all(inputs)

    def _check_all(self, inputs: list[Input]) -> None:
        for field, typed in zip(self._fields, inputs, strict=True):
            if problem := field.check(typed.value.strip()):
                self._tell(problem, "bad")
                typed.focus()
                return
        values = {field.name: typed.value.strip() for field, typed in zip(self._fields, inputs, strict=True)}
        if self._submit is None:
            self.dismiss(values[self._fields[-1].name])
            return
        self._tell("…", "")
        self._run(self._submit, values)

    @work(exclusive=True, group="ask", exit_on_error=False)
    async def _run(self, submit: Submit, values: dict[str, str]) -> None:
        try:
            done = await submit(values)
        except KamaError as error:
            self._tell(f"✖ {error.message}", "bad")
            return
        self._done = done
        self._tell(done.text, "good")
        # Nothing more is to be typed: keys are the form's own from here on.
        self.query(Input).set(disabled=True)
        self.query_one(".card-keys", Label).update("t: trace it · Esc: leave" if done.uuid else "Esc: leave")

    def _tell(self, text: str, kind: str) -> None:
        label = self.query_one("#outcome", Label)
        label.update(clean(text))
        label.set_classes(kind)
