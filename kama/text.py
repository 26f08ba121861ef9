"""Text that others wrote, made fit for a terminal; secrets kept out of it; columns that line up whatever is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

# C0, DEL, C1; bidirectional marks, embeddings, overrides and isolates (Unicode TR 9); line and paragraph
# separators; zero-width space, invisible operators and deprecated format characters; byte order mark; interlinear
# annotations; lone surrogates; tag characters. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)

_PASSWORD = re.compile(r"(?<=://)([^:/@\s]*):\S*@")
_PASSWORD_PARAMETER = re.compile(r"(?<=[?&])(\w*(?:password|passwd|secret)\w*)=[^&#\s]*", re.IGNORECASE)
_TOKEN = re.compile(r"\beyJ[\w-]*\.[\w-]+\.[\w-]*")


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)  # its control picture: ␛ for ESC, ␊ for a line feed
    return "␡" if code == 0x7F else "\ufffd"


def sanitize(text: str) -> str:
    """One line that only prints: it can move no cursor, set no title, ring no bell and turn no text around."""
    return _UNSAFE.sub(_picture, text)


def escape_json(document: str) -> str:
    """A JSON document that means the same and only prints: what `sanitize` would change is escaped as `\\u001b`."""
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], document)


def conceal(text: str) -> str:
    """Text that came from anywhere, without the passwords of its URLs and without tokens."""
    text = _PASSWORD_PARAMETER.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", text))
    return _TOKEN.sub("***", text)


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns, by the cells that a terminal gives each character; nothing is cut off."""
    from rich.cells import cell_len  # 20 ms that a command without a table need not wait for

    clean = [[sanitize(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*clean, strict=True)]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in clean
    ]
