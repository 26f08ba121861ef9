"""HelpScreen: every key there is, made from the bindings as they are now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Label

from kama.monitor_filter import FIELDS, WORDS
from kama.tui.cells import clean
from kama.tui.keys import GROUPS

_NAMES = {
    "slash": "/", "question_mark": "?", "colon": ":", "exclamation_mark": "!", "plus": "+", "minus": "-",
    "equals_sign": "=", "left_square_bracket": "[", "right_square_bracket": "]", "less_than_sign": "<",
    "greater_than_sign": ">", "escape": "Esc", "enter": "Enter", "space": "Space", "pageup": "PgUp",
    "pagedown": "PgDn", "up": "↑", "down": "↓", "home": "Home", "end": "End",
}  # fmt: skip


def keys_of(bindings: Iterable[Binding]) -> dict[str, list[tuple[str, str]]]:
    """Keys and what they do, by group, in the order of GROUPS; a binding with several keys stands once."""
    by_id: dict[str, tuple[list[str], str]] = {}
    for binding in bindings:
        if binding.id is not None:
            keys, _ = by_id.setdefault(binding.id, ([], binding.tooltip or binding.description))
            name = _NAMES.get(binding.key, binding.key)
            if name not in keys:
                keys.append(name)
    return {
        title: lines
        for prefix, title in GROUPS
        if (lines := [(" ".join(keys), what) for id, (keys, what) in by_id.items() if id.partition(".")[0] == prefix])
    }


class HelpScreen(ModalScreen[None]):
    """Any of its keys closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "leave", "Close", show=False),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("up,k", "scroll(-1)", "Up", show=False),
    ]

    def __init__(self, bindings: Iterable[Binding], notes: Iterable[str]) -> None:
        super().__init__()
        self._listed = list(bindings)
        self._notes = list(notes)

    def compose(self) -> ComposeResult:
        with Vertical(id="card", classes="wide-card"):
            yield Label("Keys", classes="card-title", markup=False)
            with VerticalScroll(id="help-lines"):
                for title, lines in keys_of(self._listed).items():
                    yield Label(title, classes="card-label", markup=False)
                    for keys, what in lines:
                        yield Label(f"  {keys:<12} {what}", markup=False)
                yield Label("Filter (/)", classes="card-label", markup=False)
                yield Label("  terms with a blank between, all must hold; !term: it does not", markup=False)
                yield Label(f"  fields  {' '.join(FIELDS)}", markup=False)
                yield Label(f"  words   {' '.join(WORDS)}", markup=False)
                for note in self._notes:
                    yield Label(clean(note), markup=False)
            yield Label("Esc: close · j k: scroll", classes="card-keys", markup=False)

    def action_leave(self) -> None:
        self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self.query_one("#help-lines").scroll_relative(y=by, animate=False)
