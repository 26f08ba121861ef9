"""Names that attack a terminal or what draws on it. Nothing of them may reach it but as text."""

from __future__ import annotations

import re

CORPUS: tuple[str, ...] = (
    "[/foo]",
    "[@click=app.quit]x[/]",
    "[bold red]x",
    "[link=http://evil.example]x[/link]",
    "\\[x]",
    "\x1b[2J\x1b[H",
    "\x1b]0;owned\x07",
    "\x1b]52;c;ZXZpbA==\x1b\\",
    "\x1b]8;;http://evil.example\x1b\\x",
    "\x1bP$q\x1b\\",
    "\x9b2J",
    "\x9d0;owned\x9c",
    "a\rb\nc\td\x00e\x08f\x7f",
    "\u202egnp.exe",
    "\u2066x\u2069\u200f",
    "zero\u200bwidth\ufeff",
    "line\u2028paragraph\u2029",
    "tag\U000e0041\U000e007f",
    "王小明",
    "👩\u200d👩\u200d👧",
    "e\u0301" * 20,
    "｜" * 40,
    "x" * 400,
    "%s %(x)s {x} {0}",
    "'; DROP TABLE message; --",
)

_CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def controls_in(text: str) -> list[str]:
    """What in it would do something to a terminal, line feeds apart."""
    return _CONTROL.findall(text)
