"""Lately: what is still needed is never forgotten, and what is not is, at last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kama.server.store.lately import Lately

steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9)),
        st.tuples(st.just("get"), st.integers(0, 9)),
        st.tuples(st.just("fold"), st.integers(0, 40)),
    ),
    max_size=60,
)


@given(steps, st.integers(1, 4))
def test_what_is_not_folded_yet_is_remembered_as_it_was_last_put(plan: list[tuple[str, int]], generation: int) -> None:
    """Each put is a record of the log: it is needed until the store has it."""
    lately: Lately[int, int] = Lately(generation)
    model: dict[int, int] = {}
    end = folded = 0
    for act, number in plan:
        match act:
            case "put":
                end += 1
                lately[number] = end
                model[number] = end
                lately.turn_over(end, folded)
            case "get":
                assert lately[number] in (None, model.get(number))
            case "fold":
                folded = max(folded, min(end, number))
        for key, position in model.items():
            if position > folded:
                assert lately[key] == position


def test_what_is_no_longer_needed_is_forgotten_after_two_generations() -> None:
    lately: Lately[int, int] = Lately(3)
    for number in range(100):
        lately[number] = number
        lately.turn_over(number, number)
        assert len(lately) <= 3
    assert lately[0] is None
    assert lately[99] == 99


def test_what_is_asked_for_is_kept() -> None:
    lately: Lately[int, int] = Lately(3)
    lately[-1] = 7
    for number in range(100):
        assert lately[-1] == 7
        lately[number] = number
        lately.turn_over(number, number)


def test_while_nothing_is_folded_nothing_is_forgotten() -> None:
    lately: Lately[int, int] = Lately(3)
    for number in range(100):
        lately[number] = number
        lately.turn_over(number + 1, 0)
    assert [lately[number] for number in range(100)] == list(range(100))
