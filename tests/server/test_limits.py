"""Token buckets: never more than the burst plus the rate, per user, and an honest word about the wait."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kama.server import limits
from kama.server.limits import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def allowed(buckets: TokenBuckets, key: str = "U1", tries: int = 100) -> int:
    return sum(buckets.take(key) == 0.0 for _ in range(tries))


def test_a_burst_passes_and_no_more(clock: Clock) -> None:
    """KamaChat defect 25: there was no limit."""
    assert allowed(TokenBuckets(20, 60, clock)) == 60


def test_the_wait_is_as_long_as_it_says(clock: Clock) -> None:
    buckets = TokenBuckets(20, 1, clock)
    assert buckets.take("U1") == 0.0
    wait = buckets.take("U1")
    assert wait == pytest.approx(0.05)
    clock.now += wait / 2
    assert buckets.take("U1") == pytest.approx(wait / 2)
    clock.now += wait / 2 + 1e-9
    assert buckets.take("U1") == 0.0


def test_it_fills_up_to_the_burst_and_not_beyond(clock: Clock) -> None:
    buckets = TokenBuckets(20, 60, clock)
    allowed(buckets)
    clock.now += 1.001
    assert allowed(buckets) == 20
    clock.now += 3600
    assert allowed(buckets) == 60


def test_one_user_does_not_use_up_anothers(clock: Clock) -> None:
    buckets = TokenBuckets(20, 5, clock)
    assert (allowed(buckets, "U1"), allowed(buckets, "U2")) == (5, 5)


def test_a_rate_of_zero_means_no_limit(clock: Clock) -> None:
    assert allowed(TokenBuckets(0, 1, clock), tries=1000) == 1000


def test_a_burst_below_one_still_lets_one_message_through(clock: Clock) -> None:
    assert allowed(TokenBuckets(1, 0, clock)) == 1


def test_who_is_refused_pays_nothing(clock: Clock) -> None:
    buckets = TokenBuckets(1, 1, clock)
    allowed(buckets, tries=50)
    clock.now += 1.001
    assert buckets.take("U1") == 0.0


def test_whoever_is_full_again_is_forgotten_and_the_others_keep_their_debt(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_PRUNE_AT", 10)
    buckets = TokenBuckets(1, 2, clock)
    for number in range(9):
        buckets.take(f"U{number}")
    clock.now += 1.5
    allowed(buckets, "busy", tries=2)
    buckets.take("last")
    assert len(buckets._buckets) == 2
    assert buckets.take("busy") > 0


def test_while_nobody_can_be_forgotten_it_does_not_look_every_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_PRUNE_AT", 10)
    prunes = []
    prune = TokenBuckets._prune
    monkeypatch.setattr(TokenBuckets, "_prune", lambda self, now: (prunes.append(1), prune(self, now)))
    buckets = TokenBuckets(1, 2, clock)
    for number in range(1000):
        buckets.take(f"U{number}")
    assert len(prunes) < 10


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.5, 50), st.integers(1, 20), st.lists(st.tuples(st.floats(0, 0.5), st.sampled_from("ab")), max_size=80)
)
def test_no_one_ever_gets_more_than_the_burst_and_the_rate(
    rate: float, burst: int, plan: list[tuple[float, str]]
) -> None:
    clock = Clock()
    buckets = TokenBuckets(rate, burst, clock)
    taken: dict[str, list[float]] = {"a": [], "b": []}
    for pause, key in plan:
        clock.now += pause
        if buckets.take(key) == 0.0:
            taken[key].append(clock.now)
    for moments in taken.values():
        for first in range(len(moments)):
            for last in range(first, len(moments)):
                span = moments[last] - moments[first]
                assert last - first + 1 <= burst + span * rate + 1e-6
