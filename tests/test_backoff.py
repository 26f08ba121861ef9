"""Backoff: the waits between tries."""

from itertools import islice

from kama.backoff import Backoff


def waits(backoff: Backoff, count: int) -> list[float]:
    return list(islice(iter(backoff.take, None), count))


def test_each_wait_is_twice_the_one_before_up_to_the_most() -> None:
    assert waits(Backoff(0.5, 3.0), 5) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_what_is_to_come_can_be_told_before_it_is_taken() -> None:
    backoff = Backoff(0.5, 3.0)
    assert (backoff.delay, backoff.take(), backoff.delay) == (0.5, 0.5, 1.0)


def test_after_a_success_it_begins_with_the_first() -> None:
    backoff = Backoff(0.5, 3.0)
    waits(backoff, 3)
    backoff.begin_anew()
    assert waits(backoff, 2) == [0.5, 1.0]
