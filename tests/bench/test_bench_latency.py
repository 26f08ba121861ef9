"""The histogram: percentiles within 0.8 %, whatever was recorded, in memory that does not grow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kama.bench.latency import Histogram

seconds = st.floats(min_value=0, max_value=3600)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(seconds, min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_percentile_is_the_exact_one_or_a_little_more(values: list[float], part: float) -> None:
    exact = sorted(values)[math.ceil(len(values) * part) - 1]
    found = filled(values).percentile(part)
    assert found is not None
    assert exact - 1e-6 <= found <= exact * 1.008 + 2e-6


@given(st.lists(seconds, min_size=1))
def test_the_largest_is_exact_and_no_percentile_exceeds_it(values: list[float]) -> None:
    histogram = filled(values)
    assert (histogram.count, histogram.max) == (len(values), max(values))
    assert histogram.percentile(0.999) is not None and histogram.percentile(0.999) <= max(values)


def test_nothing_recorded_has_no_percentiles() -> None:
    assert Histogram().as_ms() == {"count": 0, "p50": None, "p90": None, "p99": None, "p99_9": None, "max": None}


@pytest.mark.parametrize("value", [-1.0, 1e9])
def test_what_no_clock_should_give_is_counted_all_the_same(value: float) -> None:
    assert filled([value]).count == 1


def test_milliseconds_are_told() -> None:
    told = filled([0.001] * 99 + [0.5]).as_ms()
    assert (told["count"], told["max"]) == (100, 500.0)
    assert told["p50"] == pytest.approx(1.0, rel=0.01) and told["p99_9"] == 500.0
