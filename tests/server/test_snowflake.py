"""Message ids: unique and ascending whatever the clock does, laid out as everybody's snowflakes are."""

from __future__ import annotations

import itertools
import time
from random import Random

import pytest
import snowflake as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from kama.server.snowflake import EPOCH_MS, NODE_MAX, Snowflake, timestamp_ms

NOW = 1_800_000_000_000


class Clock:
    """A clock that shows what it is told to: milliseconds, asked for in nanoseconds."""

    def __init__(self, ms: int = NOW) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms * 1_000_000


@pytest.mark.parametrize("node", [0, 1, 512, NODE_MAX])
def test_ids_are_laid_out_as_everybodys(node: int) -> None:
    ids = Snowflake(node, clock_ns=Clock())
    for step in range(3):
        parsed = oracle.Snowflake.parse(ids.next(), EPOCH_MS)
        assert (parsed.milliseconds, parsed.instance, parsed.seq) == (NOW, node, step)


def test_ids_are_those_that_the_well_known_generator_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle.snowflake, "time", lambda: NOW / 1000)
    theirs = oracle.SnowflakeGenerator(5, epoch=EPOCH_MS, timestamp=NOW - 1)
    ours = Snowflake(5, clock_ns=Clock())
    assert [ours.next() for _ in range(4096)] == [next(theirs) for _ in range(4096)]


@given(st.integers(0, 2**41 - 1), st.integers(0, NODE_MAX), st.integers(0, 4095))
def test_the_time_is_read_back_from_an_id(ms: int, node: int, step: int) -> None:
    uuid = oracle.Snowflake(ms, node, EPOCH_MS, step).value
    assert timestamp_ms(uuid) == ms + EPOCH_MS


def test_an_id_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = timestamp_ms(Snowflake(1).next())
    assert before <= made <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("node", [-1, 1024, 10**9])
def test_a_node_number_out_of_range_is_refused(node: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 1023, got {node}"):
        Snowflake(node)


def test_two_nodes_never_give_the_same_id() -> None:
    first, second = Snowflake(1, clock_ns=Clock()), Snowflake(2, clock_ns=Clock())
    assert not {first.next() for _ in range(9000)} & {second.next() for _ in range(9000)}


def test_a_clock_that_steps_back_gives_no_id_twice() -> None:
    clock = Clock()
    ids = Snowflake(1, clock_ns=clock)
    before = [ids.next() for _ in range(3)]
    clock.ms -= 5000
    after = [ids.next() for _ in range(3)]
    assert after == sorted(after)
    assert after[0] > before[-1]


def test_more_ids_than_fit_a_millisecond_go_on_in_the_next() -> None:
    ids = Snowflake(1, clock_ns=Clock())
    given_out = [ids.next() for _ in range(10_000)]
    assert all(one < other for one, other in itertools.pairwise(given_out))
    assert [timestamp_ms(given_out[index]) - NOW for index in (4095, 4096, 8191, 8192)] == [0, 1, 1, 2]


def test_after_a_burst_ids_return_to_the_clock() -> None:
    clock = Clock()
    ids = Snowflake(1, clock_ns=clock)
    for _ in range(5000):
        ids.next()
    clock.ms += 10
    assert timestamp_ms(ids.next()) == NOW + 10


def test_a_clock_before_the_epoch_gives_ids_above_zero() -> None:
    ids = Snowflake(0, clock_ns=Clock(0))
    assert 0 < ids.next() < ids.next()


# --- after a restart


def test_a_restart_with_the_clock_set_back_gives_no_id_again() -> None:
    before = Snowflake(1, clock_ns=Clock())
    last = [before.next() for _ in range(5)][-1]
    after = Snowflake(1, clock_ns=Clock(NOW - 3_600_000))
    after.resume_after(last)
    assert after.next() > last


def test_a_restart_resumes_after_a_greater_nodes_id_of_the_same_millisecond() -> None:
    last = Snowflake(NODE_MAX, clock_ns=Clock()).next()
    ids = Snowflake(1, clock_ns=Clock())
    ids.resume_after(last)
    assert ids.next() > last


def test_a_restart_after_nothing_starts_with_the_clock() -> None:
    ids = Snowflake(1, clock_ns=Clock())
    ids.resume_after(0)
    assert timestamp_ms(ids.next()) == NOW


def test_a_restart_after_an_old_id_starts_with_the_clock() -> None:
    ids = Snowflake(1, clock_ns=Clock())
    ids.resume_after(Snowflake(1, clock_ns=Clock(NOW - 5000)).next())
    assert timestamp_ms(ids.next()) == NOW


def test_resuming_after_an_earlier_id_does_not_move_back() -> None:
    ids = Snowflake(1, clock_ns=Clock())
    first = ids.next()
    for earlier in (0, -1, first - (1 << 22), first - 1, first):
        ids.resume_after(earlier)
        following = ids.next()
        assert following > first
        first = following


times = st.integers(NOW - 50, NOW + 50) | st.integers(0, 2 * NOW)
acts = st.lists(times | st.tuples(times, st.integers(0, NODE_MAX), st.integers(0, 4095)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, NODE_MAX), acts)
def test_ids_ascend_whatever_the_clock_shows_and_whatever_is_resumed_after(node: int, plan: list[object]) -> None:
    clock = Clock(NOW)
    ids = Snowflake(node, clock_ns=clock)
    last = 0
    for act in plan:
        if isinstance(act, tuple):
            ms, other, step = act
            uuid = max(ms - EPOCH_MS, 0) << 22 | other << 12 | step
            ids.resume_after(uuid)
            last = max(last, uuid)
        else:
            assert isinstance(act, int)
            clock.ms = act
        new = ids.next()
        assert new > last
        assert new >> 12 & NODE_MAX == node
        last = new


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_ids_ascend_under_load_with_a_clock_that_stands_and_jumps(seed: int) -> None:
    random = Random(seed)
    clock = Clock()
    ids = Snowflake(1, clock_ns=clock)
    last = 0
    for _ in range(9000):
        clock.ms += random.choice((0, 0, 0, 0, 0, 1, -2, 2))
        new = ids.next()
        assert new > last
        last = new


def test_a_node_that_is_given_its_number_goes_on_after_what_it_gave_out() -> None:
    ids = Snowflake(1, clock_ns=Clock())
    before = [ids.next() for _ in range(3)]
    ids.number(300)
    after = ids.next()
    assert oracle.Snowflake.parse(after, EPOCH_MS).instance == 300
    assert after > max(before)


@pytest.mark.parametrize("node", [-1, 1024])
def test_a_number_out_of_range_leaves_the_node_as_it_was(node: int) -> None:
    ids = Snowflake(7, clock_ns=Clock())
    with pytest.raises(ValueError, match="from 0 to 1023"):
        ids.number(node)
    assert oracle.Snowflake.parse(ids.next(), EPOCH_MS).instance == 7
