"""The dashboard under a pilot, as tests use it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fake_source import FakeSource
from screen_text import plain_text
from textual.pilot import Pilot

from kama.tui.app import MonitorApp


class Dashboard:
    """The app under a pilot. `draw` takes everything that was put and draws it."""

    def __init__(self, app: MonitorApp, pilot: Pilot[None], source: FakeSource) -> None:
        self.app = app
        self.pilot = pilot
        self.source = source

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.draw()

    async def draw(self) -> None:
        await self.source.taken()
        await self.pilot.pause()
        self.app.tick()
        if asked := [worker for worker in self.app.workers if worker.group == "ask"]:
            await self.app.workers.wait_for_complete(asked)
        await self.pilot.pause()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Draws until it holds; the test's own time-out ends what never does."""
        while not condition():
            await self.draw()

    @property
    def text(self) -> str:
        return plain_text(self.app)


Open = Callable[..., AbstractAsyncContextManager[Dashboard]]
