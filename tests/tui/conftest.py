"""The dashboard on a screen of a given size, with a source that the test feeds; and its text as it should be."""

from __future__ import annotations

import difflib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_source import FakeSource, options
from tui_dashboard import Dashboard, Open

from kama.monitor.frames import Frame
from kama.tui.app import MonitorApp

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Times of day are the same everywhere, and files go to a folder of the test's own."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORFGBG", raising=False)
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.chdir(tmp_path)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def dashboard() -> Open:
    """`async with dashboard(*frames, size=(80, 24), **options) as it`."""

    @asynccontextmanager
    async def open_it(*frames: Frame, size: tuple[int, int] = (80, 24), **changes: object) -> AsyncIterator[Dashboard]:
        source = FakeSource(*frames)
        app = MonitorApp(source, options(**changes))
        async with app.run_test(size=size, notifications=True) as pilot:
            it = Dashboard(app, pilot, source)
            await it.draw()
            yield it

    return open_it


@pytest.fixture
def snap(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`snap(name, text)`: the text is that of the file; `--snap-update` makes it so."""

    def compare(name: str, text: str) -> None:
        path = SNAPSHOTS / f"{name}.txt"
        if request.config.getoption("--snap-update"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.exists(), f"there is no {path.name}: pytest --snap-update makes it"
        wanted = path.read_text(encoding="utf-8")
        difference = "\n".join(difflib.unified_diff(wanted.splitlines(), text.splitlines(), "is to be", "is", n=0))
        assert text == wanted, f"{name} looks otherwise; pytest --snap-update if it should\n{difference}"

    return compare
