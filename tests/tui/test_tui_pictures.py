"""The pictures of the documentation: the same each time, and one of each screen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {"overview", "clients", "user", "messages", "trace", "queues", "nodes", "log", "help"}


def draw(folder: Path) -> dict[str, bytes]:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "pictures"), "--into", str(folder)], check=True, timeout=300)
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.drill
def test_the_same_recording_gives_the_same_pictures(tmp_path: Path) -> None:
    first = draw(tmp_path / "first")
    assert set(first) == NAMES
    assert draw(tmp_path / "second") == first


def test_the_documentation_shows_each_screen() -> None:
    told = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
    assert all(f"(pictures/{name}.svg)" in told for name in NAMES)
    assert {path.stem for path in (ROOT / "docs" / "pictures").glob("*.svg")} == NAMES
