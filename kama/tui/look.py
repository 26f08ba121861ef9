"""How it looks: the glyphs, what stands for them where a terminal has none, and the themes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from textual.theme import Theme

ThemeName = Literal["auto", "dark", "light", "ansi", "mono"]
# What a cell, a line or a word is: a class of the style sheet.
Tone = Literal["", "dim", "good", "warn", "bad", "accent", "strong"]

# From nothing to full.
STEPS = " ▁▂▃▄▅▆▇█"
BAR = "█"
_TO_ASCII = str.maketrans(
    {
        "●": "*", "◐": "~", "◌": "?", "○": "o", "✖": "x", "✔": "+", "▲": "!", "‖": "=", "»": ">", "◉": "@",
        "▾": "v", "▴": "^", "…": "~", "→": ">", "–": "-", "·": "|", "Δ": "d", "×": "x", "─": "-", "│": "|", "▏": "|",
        "▁": ".", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*", "█": "#", "◆": "#",
    }
)  # fmt: skip


def to_ascii(text: str) -> str:
    """Each character as one of ASCII: our glyphs as what comes nearest, what is left of others' text as `?`."""
    return text.translate(_TO_ASCII).encode("ascii", "replace").decode()


def bar(value: float, capacity: float, width: int) -> str:
    """A bar of at most `width` cells; anything above nothing shows at least one."""
    if capacity <= 0 or value <= 0:
        return ""
    return BAR * max(1, min(width, round(width * value / capacity)))


_DARK = Theme(
    name="kama-dark",
    primary="#5fafff",
    secondary="#87afaf",
    accent="#d7af5f",
    warning="#ffaf00",
    error="#ff5f5f",
    success="#5fd787",
    foreground="#d0d0d0",
    background="#101214",
    surface="#101214",
    panel="#1c2024",
    dark=True,
)
_LIGHT = Theme(
    name="kama-light",
    primary="#005faf",
    secondary="#5f8787",
    accent="#875f00",
    warning="#af5f00",
    error="#d70000",
    success="#008700",
    foreground="#1c1c1c",
    background="#fafafa",
    surface="#fafafa",
    panel="#e4e4e4",
    dark=False,
)
_MONO = Theme(
    name="kama-mono",
    primary="#d0d0d0",
    secondary="#a0a0a0",
    accent="#ffffff",
    warning="#ffffff",
    error="#ffffff",
    success="#d0d0d0",
    foreground="#d0d0d0",
    background="#000000",
    surface="#000000",
    panel="#202020",
    dark=True,
)
THEMES = (_DARK, _LIGHT, _MONO)


def theme_name(wanted: ThemeName, environ: Mapping[str, str]) -> str:
    """The theme of that name; `auto` asks the variables in which terminals say what they are.

    COLORFGBG is `foreground;background`: a background of 7 or 9 to 15 is a light one.
    """
    if wanted == "auto":
        if environ.get("NO_COLOR"):
            return _MONO.name
        background = environ.get("COLORFGBG", "").rpartition(";")[2]
        is_light = background == "7" or (background.isdigit() and 9 <= int(background) <= 15)
        return (_LIGHT if is_light else _DARK).name
    return {"dark": _DARK.name, "light": _LIGHT.name, "ansi": "ansi-dark", "mono": _MONO.name}[wanted]
