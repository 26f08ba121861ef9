"""Durations and sizes: what people write is read, what nobody means is refused, and writing reads back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kama.units import MAX_DURATION, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("2d", 172800),
        ("1.5h", 5400),
        ("0s", 0),
        ("45", 45),
        (" 7s ", 7),
        ("3650d", MAX_DURATION),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "10 s", "10x", "-5s", "+5s", "1e9", "inf", "nan", "1h-1m", "١٠s", "5S", "1h x", "10s\n10"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a duration such as 10s, 5m or 1h30m, got "):
        parse_duration(text)


@pytest.mark.parametrize("text", ["3651d", "99999999999999999999", "9" * 400 + "d"])
def test_a_duration_that_nobody_waits_for_is_refused_with_the_limit(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a duration of at most 3650d, got ") as refused:
        parse_duration(text)
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize(
    ("text", "count"),
    [("512", 512), ("64KiB", 65536), ("1MB", 1_000_000), ("1 MiB", 1 << 20), ("2gib", 1 << 31), ("7B", 7), ("0", 0)],
)
def test_a_size_is_read_as_people_write_it(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "KiB", "1.5MB", "-1", "64 K", "1TB", "٣KB", "9" * 5000])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a size such as 512, 64KiB or 1MB, got ") as refused:
        parse_size(text)
    assert len(str(refused.value)) < 100


@given(st.integers(0, int(MAX_DURATION) * 1000))
def test_a_written_duration_reads_back_to_the_millisecond(milliseconds: int) -> None:
    assert math.isclose(parse_duration(format_duration(milliseconds / 1000)), milliseconds / 1000, abs_tol=0.0005)


@given(st.integers(0, 1 << 40))
def test_a_written_size_reads_back(count: int) -> None:
    assert parse_size(format_size(count)) == count


@pytest.mark.parametrize(
    ("seconds", "text"), [(5400, "1h30m"), (45, "45s"), (0.25, "250ms"), (0, "0s"), (90061.001, "1d1h1m1s1ms")]
)
def test_a_duration_is_written_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(65536, "64KiB"), (1 << 20, "1MiB"), (1000, "1000B"), (0, "0B")])
def test_a_size_is_written_in_the_largest_whole_unit(count: int, text: str) -> None:
    assert format_size(count) == text
