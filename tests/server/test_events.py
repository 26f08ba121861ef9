"""The journal: what it keeps, in which order, and what a flood pushes out of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kama.monitor_protocol import Event
from kama.server.broker import Stored
from kama.server.events import Journal, build_event, is_never_sampled_entry, sample
from kama.server.snowflake import Snowflake
from tests.server.server_builders import build_change


def note(journal: Journal, uuid: int) -> None:
    journal.risen("sent", [build_change(uuid)])


def uuids(journal: Journal, since: int = 0) -> list[int]:
    return [entry[2] for entry in journal.since(since)[0]]


def test_what_was_noted_since_comes_oldest_first() -> None:
    journal = Journal()
    for uuid in range(5):
        note(journal, uuid)
    assert uuids(journal) == [0, 1, 2, 3, 4]
    assert uuids(journal, 3) == [3, 4]
    assert journal.since(5) == ([], 0)


def test_who_comes_too_late_is_told_how_many_are_lost() -> None:
    journal = Journal()
    for uuid in range(20_010):
        note(journal, uuid)
    entries, lost = journal.since(4)
    assert (len(entries), lost, entries[0][2]) == (20_000, 6, 10)


def test_a_flood_does_not_push_failures_out() -> None:
    journal = Journal()
    journal.not_stored(7, "U1_U2", "IntegrityError")
    for uuid in range(100, 30_100):
        note(journal, uuid)
    entries, lost = journal.since(0)
    assert [entry[1] for entry in entries[:2]] == ["not_stored", "sent"]
    assert (len(entries), lost) == (20_001, 10_000)
    assert [entry[1] for entry in journal.of_message(7)] == ["not_stored"]


def test_a_failure_that_is_still_in_the_ring_comes_once() -> None:
    journal = Journal()
    for _ in range(20_000):
        note(journal, 1)
    journal.alert("store: failing")
    assert [entry[1] for entry in journal.since(0)[0]].count("alert") == 1


def test_a_journal_knows_since_when_it_keeps_everything() -> None:
    now = [1_000]
    journal = Journal(clock_ns=lambda: now[0] * 1_000_000)
    assert journal.kept_since_ms == 1_000
    now[0] = 2_000
    note(journal, 1)
    assert journal.kept_since_ms == 1_000
    now[0] = 3_000
    for _ in range(20_000):
        note(journal, 2)
    assert journal.kept_since_ms == 3_000


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        (
            lambda journal: journal.accepted(1, "U1_U2", "U1", "U2", 0, 5, "c1"),
            Event(
                at_ms=9, kind="accepted", node="n1", uuid="1", conversation="U1_U2", send_id="U1", receive_id="U2",
                type=0, size=5, connection="c1",
            ),
        ),
        (
            lambda journal: journal.produced(1, "chat", 2, 30),
            Event(at_ms=9, kind="produced", node="n1", uuid="1", place="chat/2/30"),
        ),
        (
            lambda journal: journal.stored([(1, Stored(3, "U1_U2", 4, duplicate=True))], 2.5),
            Event(
                at_ms=9, kind="stored", node="n1", uuid="1", conversation="U1_U2", seq=4, count=1, took_ms=2.5,
                text="duplicate",
            ),
        ),
        (
            lambda journal: journal.routed(1, "G1", 4, 10, 3, 2),
            Event(
                at_ms=9, kind="routed", node="n1", uuid="1", conversation="G1", seq=4, members=10, online=3, depth=2
            ),
        ),
        (
            lambda journal: journal.written(1, "U2", "c2", 4, live=True),
            Event(at_ms=9, kind="written", node="n1", uuid="1", user_id="U2", connection="c2", took_ms=5),
        ),
        (
            lambda journal: journal.refused("U1", "c1", 1009, "too many"),
            Event(at_ms=9, kind="refused", node="n1", user_id="U1", connection="c1", code=1009, text="too many"),
        ),
        (
            lambda journal: journal.dropped("U1", "c1", "full"),
            Event(at_ms=9, kind="dropped", node="n1", user_id="U1", connection="c1", text="full"),
        ),
        (
            lambda journal: journal.undeliverable(1, "U2"),
            Event(at_ms=9, kind="undeliverable", node="n1", uuid="1", receive_id="U2"),
        ),
        (
            lambda journal: journal.opened("U1", "c1", "127.0.0.1:5"),
            Event(at_ms=9, kind="opened", node="n1", user_id="U1", connection="c1", text="127.0.0.1:5"),
        ),
        (
            lambda journal: journal.closed("U1", "c1", 4002, "kicked"),
            Event(at_ms=9, kind="closed", node="n1", user_id="U1", connection="c1", code=4002, text="kicked"),
        ),
        (
            lambda journal: journal.action("Uadmin", "kicked (target: U1)"),
            Event(at_ms=9, kind="action", node="n1", user_id="Uadmin", text="kicked (target: U1)"),
        ),
        (
            lambda journal: journal.alert("store: failing"),
            Event(at_ms=9, kind="alert", node="n1", text="store: failing"),
        ),
    ],
)  # fmt: skip
def test_an_entry_becomes_the_event_that_was_noted(noted: object, expected: Event) -> None:
    journal = Journal(clock_ns=lambda: 9_000_000)
    assert callable(noted)
    noted(journal)
    assert [build_event(entry, "n1") for entry in journal.since(0)[0]] == [expected]


def test_only_live_messages_say_how_long_delivery_takes() -> None:
    journal = Journal(clock_ns=lambda: 50_000_000)
    journal.written(1, "U2", "c2", 40, live=True)
    journal.written(2, "U2", "c2", 10, live=False)
    assert list(journal.traffic.written_live) == [(50_000_000, "written", 1, "U2", "c2", 10.0)]


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 50))
def test_a_sample_keeps_all_failures_the_order_and_the_bound(failed: list[bool], most: int) -> None:
    entries = [(number, "alert" if failure else "sent") for number, failure in enumerate(failed)]
    chosen = sample(entries, most, is_never_sampled_entry, lambda entry: entry[0])
    ordinary = [entry for entry in chosen if entry[1] == "sent"]
    assert [entry for entry in chosen if entry[1] == "alert"] == [entry for entry in entries if entry[1] == "alert"]
    assert len(ordinary) <= most
    assert chosen == sorted(chosen)
    if failed.count(False) <= most:
        assert chosen == entries


def test_a_message_is_sampled_from_its_beginning_to_its_end() -> None:
    ids = Snowflake(1)
    messages = [ids.next() for _ in range(4000)]
    shown: list[set[int]] = []
    for step, count in (("accepted", 4000), ("stored", 3900), ("sent", 3800)):
        entries = [(number, step, uuid) for number, uuid in enumerate(messages[:count])]
        shown.append({uuid for _, _, uuid in sample(entries, 1500, is_never_sampled_entry, lambda entry: entry[2])})
    assert 700 < len(shown[0]) <= 1500
    assert shown[0] >= shown[1] >= shown[2]
    assert shown[2] == shown[0] & set(messages[:3800])


def test_what_is_over_the_bound_is_left_out_evenly() -> None:
    entries = [(number, "sent") for number in range(1000)]
    chosen = [number for number, _ in sample(entries, 10, is_never_sampled_entry, lambda entry: 0)]
    assert {after - before for before, after in zip(chosen, chosen[1:], strict=False)} == {100}
