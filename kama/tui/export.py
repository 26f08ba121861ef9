"""Export: a table as it stands, into files of the current folder that only their owner can read."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from kama.text import escape_json
from kama.tui.cells import clean
from kama.tui.widgets.live_table import LiveTable


def export_table(table: LiveTable[Any], name: str, now_ms: int) -> str:
    """Write what the table shows as CSV, and its rows whole as JSON. What became of it, in words."""
    stem = f"kama-{name}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now_ms / 1000))}"
    try:
        for kind, content in ((".csv", as_csv(table, now_ms)), (".json", as_json(table.rows))):
            write_private(Path(stem + kind), content)
    except OSError as error:
        return f"could not write {stem}: {error.strerror or error}"
    return f"wrote {len(table.rows)} rows to {Path.cwd() / stem}.csv and .json"


def as_csv(table: LiveTable[Any], now_ms: int) -> str:
    """All columns, also those that the screen has no room for."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([column.name for column in table.columns])
    for row in table.rows:
        cells = (column.cell(row, now_ms) for column in table.columns)
        writer.writerow([_harmless((cell if isinstance(cell, str) else cell[0]).strip()) for cell in cells])
    return out.getvalue()


def as_json(rows: list[Any]) -> str:
    """An array with a row on each line."""
    lines = (escape_json(json.dumps(row, ensure_ascii=False)) for row in msgspec.to_builtins(rows))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def write_private(path: Path, content: str) -> None:
    """Raises OSError, also when the file is there already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(content)


def _harmless(text: str) -> str:
    """A spreadsheet would run a text that begins like a formula."""
    text = clean(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
