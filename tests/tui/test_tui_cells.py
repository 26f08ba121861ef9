"""Text in a number of cells."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from kama.tui.cells import Align, fit


@pytest.mark.parametrize(
    ("text", "width", "align", "shown"),
    [
        ("node", 6, "left", "node  "),
        ("node", 6, "right", "  node"),
        ("node", 6, "tail", "node  "),
        ("127.0.0.1:28202", 8, "left", "127.0.0…"),
        ("127.0.0.1:28202", 8, "tail", "…1:28202"),
        ("王小明", 5, "tail", "…小明"),
        ("node", 1, "tail", "n"),
        ("node", 0, "tail", ""),
    ],
)
def test_a_text_takes_its_cells_and_no_more(text: str, width: int, align: Align, shown: str) -> None:
    assert fit(text, width, align) == shown
    assert cell_len(shown) == width
