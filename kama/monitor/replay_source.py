"""ReplaySource: a recording, played as if it happened now: at any speed, paused, step by step, from any place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType

from kama.errors import KamaError
from kama.monitor.frames import Item
from kama.monitor.recording import Recording
from kama.monitor.source import REQUEST_TIMEOUT, Request
from kama.monitor_protocol import Outcome, Sub

SPEED_MIN = 0.1
SPEED_MAX = 100.0


class ReplaySource:
    """At the end it stays where it is, and can still go back. Raises SettingsError for a file that is no recording."""

    def __init__(self, path: Path, *, speed: float = 1.0) -> None:
        self.recording = Recording(path)
        self.is_paused = False
        self._speed = speed
        self._place = 0  # of the next item
        self._goes_to: int | None = 0  # a place to go to before that
        self._anchor_ms = self.recording.start_ms
        self._anchor = time.monotonic()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> ReplaySource:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.recording.close()

    async def __aiter__(self) -> AsyncGenerator[Item, None]:
        while True:
            if self._goes_to is not None:
                self._place, self._goes_to = self._goes_to, None
                for item in self.recording.items_before(self._place):
                    yield item
            wait = self._wait()
            if wait is None or wait > 0:
                await self._until_changed(wait)
                continue
            known = self.recording.item_at(self._place)
            self._place += 1
            if known is not None:
                yield known

    def _wait(self) -> float | None:
        """Seconds until the next item is due. None: until somebody does something."""
        if self.is_paused or self.is_at_end:
            return None
        return (self.recording.time_at(self._place) - self.now_ms()) / 1000 / self._speed

    async def _until_changed(self, wait: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(wait):
                await self._changed.wait()
        except TimeoutError:
            pass

    # --- what a source is asked

    @property
    def names(self) -> tuple[str, ...]:
        return (str(self.recording.path),)

    def now_ms(self) -> int:
        """Where the replay is."""
        passed = 0.0 if self.is_paused else (time.monotonic() - self._anchor) * 1000 * self._speed
        return min(self._anchor_ms + round(passed), self.recording.end_ms)

    async def subscribe(self, sub: Sub) -> None:
        """A recording shows what was asked for then."""

    async def request(self, request: Request, *, source: str = "", timeout: float = REQUEST_TIMEOUT) -> Outcome:
        raise KamaError("this is a recording: no node is there to answer")

    def retry_now(self) -> None:
        """There is nothing to connect to."""

    # --- the controls

    @property
    def is_at_end(self) -> bool:
        return self._goes_to is None and self._place >= len(self.recording)

    @property
    def speed(self) -> float:
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._stand_at(self.now_ms())
        self._speed = min(max(speed, SPEED_MIN), SPEED_MAX)

    def pause(self) -> None:
        self._stand_at(self.now_ms())
        self.is_paused = True

    def resume(self) -> None:
        self._stand_at(self._anchor_ms)
        self.is_paused = False

    def seek(self, at_ms: int) -> None:
        """Go to that moment; before the start or behind the end: there."""
        at_ms = min(max(at_ms, self.recording.start_ms), self.recording.end_ms)
        self._goes_to = self.recording.place_at(at_ms)
        self._stand_at(at_ms)

    def step(self, count: int) -> None:
        """Pause, and go that many frames on, or back where it is negative."""
        self.pause()
        at = self._place if self._goes_to is None else self._goes_to
        self._goes_to = min(max(at + count, 1), len(self.recording))
        self._stand_at(self.recording.time_at(self._goes_to - 1))

    def _stand_at(self, at_ms: int) -> None:
        self._anchor_ms, self._anchor = at_ms, time.monotonic()
        self._changed.set()
