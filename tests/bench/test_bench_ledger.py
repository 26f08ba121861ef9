"""The ledger against a model of a run: no fault that is put into it goes unseen, and a clean run is never flagged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kama.bench.frames import FrameCounts
from kama.bench.ledger import Ledger, Verdict

Row = tuple[int, int]  # seq, message


@dataclass
class Talked:
    """One conversation of a run, as everybody saw it."""

    sent: list[int]
    acked: list[int]
    stored: list[Row]
    shown: dict[str, list[Row]]


Run = dict[str, Talked]


@st.composite
def conversations(draw: st.DrawFn, numbers: count[int]) -> Talked:
    """A clean one: some messages may be without an ack, stored or not."""
    fates = draw(st.lists(st.sampled_from(["acked", "acked", "stored", "gone"]), min_size=1, max_size=12))
    sent = [next(numbers) for _ in fates]
    fate = dict(zip(sent, fates, strict=True))
    there = draw(st.permutations([message for message in sent if fate[message] != "gone"]))
    stored = list(enumerate(there, 1))
    members = [f"U{number}" for number in range(draw(st.integers(2, 4)))]
    acked = [message for message in sent if fate[message] == "acked"]
    return Talked(sent, acked, stored, {member: list(stored) for member in members})


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """At least one message of each is acked, so that there is something to break."""
    numbers = count()
    made = {f"G{number}": draw(conversations(numbers)) for number in range(draw(st.integers(1, 3)))}
    return {key: talked for key, talked in made.items() if talked.acked} or draw(runs())


def verdict_of(run: Run) -> Verdict:
    ledger = Ledger()
    for key, talked in run.items():
        ledger.open(key, talked.shown)
        for message in talked.sent:
            ledger.sent(key, message)
        for message in talked.acked:
            ledger.acked(key, message)
        for member, rows in talked.shown.items():
            for seq, message in rows:
                ledger.shown(key, member, seq, message)
        for seq, message in talked.stored:
            ledger.stored(key, seq, message)
    return ledger.verdict()


def some_talk(data: st.DataObject, run: Run) -> Talked:
    return run[data.draw(st.sampled_from(sorted(run)))]


def an_acked_row(data: st.DataObject, talked: Talked) -> Row:
    message = data.draw(st.sampled_from(talked.acked))
    return next(row for row in talked.stored if row[1] == message)


def somebody(data: st.DataObject, talked: Talked) -> list[Row]:
    return talked.shown[data.draw(st.sampled_from(sorted(talked.shown)))]


@given(runs())
def test_a_clean_run_is_never_flagged(run: Run) -> None:
    unacked = sum(len(talked.sent) - len(talked.acked) for talked in run.values())
    assert verdict_of(run) == Verdict(unacked=unacked)


@given(runs(), st.data())
def test_a_message_that_the_store_lost_is_found(run: Run, data: st.DataObject) -> None:
    talked = some_talk(data, run)
    talked.stored.remove(an_acked_row(data, talked))
    verdict = verdict_of(run)
    assert (verdict.lost, verdict.not_stored, verdict.duplicated, verdict.ok) == (1, 1, 0, False)


@given(runs(), st.data())
def test_a_message_that_somebody_was_not_shown_is_found(run: Run, data: st.DataObject) -> None:
    talked = some_talk(data, run)
    row = an_acked_row(data, talked)
    # Whoever misses one misses what follows too: a client waits for it.
    rows = somebody(data, talked)
    missing = {message for seq, message in rows if seq >= row[0]}
    rows[:] = [shown for shown in rows if shown[0] < row[0]]
    verdict = verdict_of(run)
    assert verdict.lost == verdict.not_received == len(missing & set(talked.acked)) > 0
    assert (verdict.duplicated, verdict.reordered) == (0, 0)


@given(runs(), st.data())
def test_a_message_that_was_shown_and_never_stored_is_found(run: Run, data: st.DataObject) -> None:
    talked = some_talk(data, run)
    row = an_acked_row(data, talked)
    talked.acked.remove(row[1])
    talked.stored.remove(row)
    assert verdict_of(run).not_stored == 1


@given(runs(), st.data(), st.integers(1, 3))
def test_a_message_that_is_stored_again_is_found(run: Run, data: st.DataObject, times: int) -> None:
    talked = some_talk(data, run)
    _, message = an_acked_row(data, talked)
    for _ in range(times):
        talked.stored.append((talked.stored[-1][0] + 1, message))
    verdict = verdict_of(run)
    assert (verdict.duplicated, verdict.stored_twice, verdict.lost, verdict.reordered) == (times, times, 0, 0)


@given(runs(), st.data(), st.integers(1, 3))
def test_a_message_that_is_shown_again_is_found(run: Run, data: st.DataObject, times: int) -> None:
    talked = some_talk(data, run)
    row = an_acked_row(data, talked)
    somebody(data, talked).extend([row] * times)
    verdict = verdict_of(run)
    assert (verdict.duplicated, verdict.shown_twice, verdict.lost) == (times, times, 0)


@given(runs(), st.data())
def test_two_messages_in_the_wrong_order_are_found(run: Run, data: st.DataObject) -> None:
    talked = some_talk(data, run)
    if len(talked.stored) < 2:
        talked.stored.append((talked.stored[-1][0] + 1, 10**6))
        for shown in talked.shown.values():
            shown[:] = talked.stored
    rows = data.draw(st.sampled_from([talked.stored, *talked.shown.values()]))
    at = data.draw(st.integers(0, len(rows) - 2))
    rows[at], rows[at + 1] = rows[at + 1], rows[at]
    verdict = verdict_of(run)
    assert verdict.reordered > 0 and not verdict.ok
    assert (verdict.lost, verdict.duplicated) == (0, 0)


# --- what a model does not show ------------------------------------------------------------------------


def pair() -> Ledger:
    ledger = Ledger()
    ledger.open("U1_U2", ["U1", "U2"])
    return ledger


def test_what_is_outstanding_goes_down_with_each_member_who_is_shown_it() -> None:
    ledger = pair()
    ledger.sent("U1_U2", 7)
    assert ledger.outstanding == 0, "nobody promised anything yet"
    ledger.acked("U1_U2", 7)
    assert ledger.outstanding == 2
    ledger.shown("U1_U2", "U1", 1, 7)
    ledger.shown("U1_U2", "U2", 1, 7)
    assert ledger.outstanding == 0


def test_a_user_who_was_sent_away_need_not_receive_anything() -> None:
    ledger = pair()
    ledger.sent("U1_U2", 7)
    ledger.acked("U1_U2", 7)
    ledger.stored("U1_U2", 1, 7)
    ledger.shown("U1_U2", "U1", 1, 7)
    ledger.leave("U2")
    ledger.shown("U1_U2", "U2", 1, 7)
    assert ledger.outstanding == 0 and ledger.verdict() == Verdict()


def test_messages_of_others_have_a_place_and_nothing_else() -> None:
    ledger = pair()
    for seq, message in enumerate((None, 7, None), 1):
        ledger.shown("U1_U2", "U1", seq, message)
        ledger.shown("U1_U2", "U2", seq, message)
        ledger.stored("U1_U2", seq, message)
    assert ledger.verdict().ok


@pytest.mark.parametrize(
    ("counts", "broken"),
    [
        (FrameCounts(twice=2), lambda verdict: verdict.duplicated == 2),
        (FrameCounts(out_of_order=3), lambda verdict: verdict.reordered == 3),
    ],
)
def test_what_a_connection_carried_counts(counts: FrameCounts, broken: Callable[[Verdict], bool]) -> None:
    ledger = pair()
    ledger.connection_ended(counts)
    assert broken(ledger.verdict()) and not ledger.verdict().ok


def test_a_seq_that_was_left_out_and_pulled_is_no_fault() -> None:
    ledger = pair()
    ledger.connection_ended(FrameCounts(skipped=4, pulls=1))
    assert ledger.verdict() == Verdict(skipped=4) and ledger.verdict().ok
