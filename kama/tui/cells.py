"""Text in a number of terminal cells, and numbers and times as a person reads them at a glance.

Whatever comes from a node goes through `clean` or `fit` here before it is drawn.
"""

from __future__ import annotations

import time
from typing import Literal

from rich.cells import cell_len, set_cell_size

from kama.text import sanitize

# `tail`: at the left, and of what is too long the end is kept, as of nodes' names, which differ in their ports.
Align = Literal["left", "right", "tail"]
_DAY_S = 86_400


def clean(text: str) -> str:
    """Text that others wrote, as one line that only prints."""
    return text if text.isascii() and text.isprintable() else sanitize(text)


def fit(text: str, width: int, align: Align = "left", ellipsis: str = "…") -> str:
    """The cleaned text in exactly `width` cells: cut with an ellipsis, or padded with blanks."""
    text = clean(text)
    length = len(text) if text.isascii() else cell_len(text)
    if length > width:
        if width <= len(ellipsis):
            return set_cell_size(text, max(0, width))
        room = width - len(ellipsis)
        return (
            ellipsis + set_cell_size(text[::-1], room)[::-1]
            if align == "tail"
            else set_cell_size(text, room) + ellipsis
        )
    padding = " " * (width - length)
    return padding + text if align == "right" else text + padding


def number(value: float) -> str:
    """`4,120`, `12.3k` and `4.1M` above; one decimal below ten unless it is whole."""
    if value >= 999_950:
        return f"{value / 1e6:.1f}M"
    if value >= 99_950:
        return f"{value / 1e3:.0f}k"
    if value < 9.95 and round(value, 1) != round(value):
        return f"{value:.1f}"
    return f"{value:,.0f}"


def size(count: float) -> str:
    """`812B`, `64.0K`, `1.2M`: bytes in powers of 1024."""
    if count < 1024:
        return f"{count:.0f}B"
    for unit in "KMG":
        count /= 1024
        if count < 1000 or unit == "G":
            return f"{count:.1f}{unit}"
    raise AssertionError("the last unit has no upper bound")


def milliseconds(value: float | None) -> str:
    """`–` when there was nothing to measure, `41ms`, `1.4s`."""
    if value is None:
        return "–"
    if value >= 10_000:
        return span(value)
    if value >= 1000:
        return f"{value / 1000:.1f}s"
    return f"{value:.1f}ms" if 0 < value < 9.95 else f"{value:.0f}ms"


def span(ms: float) -> str:
    """How long ago or how long: `0s`, `41s`, `3m12s`, `3h12m`, `4d02h`."""
    seconds = max(0, int(ms / 1000))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < _DAY_S:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    return f"{seconds // _DAY_S}d{seconds % _DAY_S // 3600:02}h"


def uptime(ms: float) -> str:
    """`03:12:44`, with days in front when there are some."""
    seconds = max(0, int(ms / 1000))
    days, seconds = divmod(seconds, _DAY_S)
    clock = f"{seconds // 3600:02}:{seconds % 3600 // 60:02}:{seconds % 60:02}"
    return f"{days}d {clock}" if days else clock


def clock(at_ms: int, with_ms: bool = False) -> str:
    """The local time of day: `12:01:07`, `12:01:07.412`."""
    text = time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))
    return f"{text}.{at_ms % 1000:03}" if with_ms else text
