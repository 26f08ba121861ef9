"""A screen as a person sees it, in plain text; and as the bytes that a terminal would get."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from textual.app import App


def plain_text(app: App[Any]) -> str:
    """Line by line, without what stands blank at their ends."""
    width, height = app.size
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True,
        legacy_windows=False, safe_box=False,
    )  # fmt: skip
    console.print(app.screen._compositor.render_update(full=True, screen_stack=app._background_screens))
    return "\n".join(line.rstrip() for line in console.export_text(clear=True).splitlines()) + "\n"
