"""Text of others on a terminal: harmless whatever is in it, and in columns that line up."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kama.text import columns, escape_json, sanitize


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("two\nlines\r\tand a tab", "two␊lines␍␉and a tab"),
        ("\x9b31mC1", "\ufffd31mC1"),
        ("rub\x7fout", "rub␡out"),
        ("evil\u202etxt.exe", "evil\ufffdtxt.exe"),
        ("\u2067isolated\u2069", "\ufffdisolated\ufffd"),
        ("a\u2028b\u2029c", "a\ufffdb\ufffdc"),
        ("zero\u200bwidth\u2060joined", "zero\ufffdwidth\ufffdjoined"),
        ("lone \ud800", "lone \ufffd"),
        ("tag \U000e0041", "tag \ufffd"),
        ("\ufeffmark", "\ufffdmark"),
    ],
)
def test_what_moves_the_cursor_or_turns_text_around_is_shown_instead(text: str, shown: str) -> None:
    assert sanitize(text) == shown


@pytest.mark.parametrize("text", ["plain", "世界", "Grüße", "שלום", "👩‍👩‍👧", "a\u0301", "[bold]markup[/bold]", "␛"])
def test_what_only_prints_stays_as_it_is(text: str) -> None:
    assert sanitize(text) == text


@given(st.text(st.characters()))
def test_no_control_and_no_surrogate_is_left_in_any_text(text: str) -> None:
    left = {unicodedata.category(character) for character in sanitize(text)}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}


@given(st.recursive(st.text(st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_escaped_json_means_the_same_and_is_safe_to_print(value: object) -> None:
    document = escape_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(document) == value
    assert sanitize(document) == document


@given(st.lists(st.tuples(*[st.text(max_size=8)] * 3), min_size=1, max_size=5))
def test_columns_begin_at_the_same_cell_on_every_line(rows: list[tuple[str, str, str]]) -> None:
    marked = [(f"{one}|", f"{two}|", f"{three}|") for one, two, three in rows]
    widths = [max(cell_len(sanitize(cell)) for cell in column) for column in zip(*marked, strict=True)]
    for (one, two, three), line in zip(marked, columns(marked), strict=True):
        assert line.endswith(sanitize(three))
        before = line[: len(line) - len(sanitize(three))]
        assert cell_len(before) == widths[0] + 2 + widths[1] + 2
        assert before.startswith(sanitize(one)) and before.rstrip(" ").endswith(sanitize(two))


def test_wide_characters_take_two_cells_of_their_column() -> None:
    assert columns([("世界", "x"), ("ab", "y"), ("abcde", "z")]) == ["世界   x", "ab     y", "abcde  z"]


def test_no_rows_are_no_lines() -> None:
    assert columns([]) == []


def test_nothing_is_cut_off_and_no_line_ends_in_blanks() -> None:
    long = "x" * 500
    assert columns([(long, "a"), ("b", "")]) == [f"{long}  a", "b"]
