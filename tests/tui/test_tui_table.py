"""A table asks its rows no more than it has to, and what it draws is what they are."""

from __future__ import annotations

from dataclasses import dataclass

from screen_text import plain_text
from textual.app import App, ComposeResult

from kama.tui.columns import Column
from kama.tui.widgets.live_table import LiveTable

NOW_MS = 1_795_530_674_000


@dataclass(slots=True)
class Row:
    id: int
    value: int


class TableApp(App[None]):
    """A table of twenty rows, and how often each was asked for its value."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []
        self.data = [Row(id, 100 + id) for id in range(20)]

    def compose(self) -> ComposeResult:
        yield LiveTable((Column("value", "VALUE", 9, self.value),), lambda row: row.id)

    def value(self, row: Row, now_ms: int) -> str:
        self.asked.append(row.id)
        return f"value {row.value}"

    @property
    def table(self) -> LiveTable[Row]:
        return self.query_one(LiveTable)


async def test_a_line_that_changed_is_put_together_once() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 8)) as pilot:
        for _ in range(2):  # once more when the scroll bar has its place
            app.table.update(app.data, NOW_MS)
            await pilot.pause()
        app.asked.clear()
        app.data[2] = Row(2, 999)
        app.table.update(app.data, NOW_MS + 250)
        await pilot.pause()
        assert "value 999" in plain_text(app)
        assert sorted(app.asked) == list(range(7))


async def test_what_changes_before_it_is_drawn_is_drawn_as_it_is_then() -> None:
    app = TableApp()
    async with app.run_test(size=(40, 8)) as pilot:
        app.table.update(app.data, NOW_MS)
        await pilot.pause()
        app.data[:7] = [Row(id, 500 + id) for id in range(7)]
        app.table.update(app.data, NOW_MS + 250)
        app.table.action_jump(-1)
        await pilot.pause()
        assert [line.strip(" ▂▄▆█▁▃▅▇") for line in plain_text(app).splitlines()] == [
            "VALUE", *(f"value {100 + id}" for id in range(13, 20)),
        ]  # fmt: skip
