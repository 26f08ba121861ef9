"""What the monitor needs to run: no screen, no settings, no server."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = ("textual", "rich", "typer", "starlette", "uvicorn", "pydantic", "sqlalchemy", "kama.server", "kama.config")


def test_all_of_the_monitor_comes_without_what_draws_and_what_serves() -> None:
    code = (
        "import importlib, pkgutil, sys, kama.monitor;"
        "names = [each.name for each in pkgutil.iter_modules(kama.monitor.__path__, 'kama.monitor.')];"
        "[importlib.import_module(name) for name in names];"
        f"print(len(names) > 10, [name for name in {WITHOUT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("True []\n", "")
