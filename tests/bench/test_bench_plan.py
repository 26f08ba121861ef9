"""Who talks to whom, and what a message carries."""

from __future__ import annotations

import pytest

from kama.bench.plan import GROUP_SIZE_MAX, GROUPS_MAX, MESSAGE_SIZE_MIN, PAIRS_MAX, Plan, Stamp
from kama.bench.user import Allowance
from kama.protocol import is_group_id, is_user_id

TWO = ("http://127.0.0.1:1", "http://127.0.0.1:2")
THREE = (*TWO, "http://127.0.0.1:3")


@pytest.mark.parametrize("nodes", [TWO, THREE])
def test_the_two_of_a_pair_are_on_different_nodes(nodes: tuple[str, ...]) -> None:
    talks = Plan(nodes, pairs=7).talks()
    assert len(talks) == 7
    assert all(sender.node != receiver.node for sender, receiver in (talk.members for talk in talks))
    assert {talk.members[0].node for talk in talks} == set(nodes)


def test_the_members_of_a_group_are_on_all_nodes() -> None:
    talks = Plan(THREE, pattern="fanout", groups=2, group_size=4).talks()
    assert [len(talk.members) for talk in talks] == [4, 4]
    assert all({seat.node for seat in talk.members} == set(THREE) for talk in talks)


def test_fanout_has_a_group_without_being_asked() -> None:
    assert len(Plan(TWO, pattern="fanout").talks()) == 1


def test_ids_are_new_in_each_run_and_valid_to_the_last() -> None:
    plan = Plan(TWO, pairs=3)
    assert {seat.user_id for seat in plan.seats()}.isdisjoint(seat.user_id for seat in Plan(TWO, pairs=3).seats())
    assert is_user_id(f"Ub{plan.run}s{PAIRS_MAX}")
    assert is_user_id(f"Ub{plan.run}g{GROUPS_MAX}m{GROUP_SIZE_MAX}") and is_group_id(f"Gb{plan.run}g{GROUPS_MAX}")
    assert all(seat.user_id.startswith(f"Ub{plan.run}") for seat in plan.seats())


@pytest.mark.parametrize("size", [MESSAGE_SIZE_MIN, 200])
@pytest.mark.parametrize("written", [(0, 0), (12, -999_999), (10**9, 10**12)])
def test_a_stamp_has_its_size_and_is_read_again(size: int, written: tuple[int, int]) -> None:
    content = Stamp("abc123", size).write(*written)
    assert len(content) == size
    assert Stamp("abc123", size).read(content) == written


@pytest.mark.parametrize("content", ["", "hello", "abc124:1:2:x", "abc123:one:2:x", "abc123:1"])
def test_what_is_not_of_this_run_is_known(content: str) -> None:
    assert Stamp("abc123", 48).read(content) is None


def test_a_user_keeps_to_the_nodes_limit() -> None:
    allowance = Allowance()
    allowance.set(10, 5)
    waits = [allowance.take(100.0) for _ in range(8)]
    assert waits[:5] == [0.0] * 5
    assert waits[5:] == pytest.approx([0.102, 0.204, 0.306])
    assert allowance.take(1000.0) == 0.0


def test_without_a_limit_nobody_waits() -> None:
    allowance = Allowance()
    allowance.set(0, 60)
    assert [allowance.take(1.0) for _ in range(100)] == [0.0] * 100
