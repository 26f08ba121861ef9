"""Timeline: the traces of several nodes as one story."""

from __future__ import annotations

from typing import Any

import pytest

from kama.monitor.trace import Timeline, describe, timeline
from kama.monitor_protocol import Event, EventKind, MessageTrace
from kama.protocol import MessageStatus


def step(at_ms: int, kind: EventKind, node: str = "n1", **fields: Any) -> Event:
    return Event(at_ms=at_ms, kind=kind, node=node, uuid="7", **fields)


ACCEPTED = step(100, "accepted", send_id="U1", receive_id="U2", conversation="U1_U2", size=5)
STORED = step(109, "stored", seq=3)
ROUTED = step(110, "routed", members=2, online=2)
WRITTEN = step(112, "written", user_id="U2")
SENT = step(115, "sent", user_id="U2", conversation="U1_U2", seq=3)
DELIVERED = step(400, "delivered", user_id="U2", conversation="U1_U2", seq=3)


def trace(*steps: Event, **fields: Any) -> MessageTrace:
    return MessageTrace(uuid="7", steps=list(steps), **fields)


def told(*steps: Event, **fields: Any) -> Timeline:
    return timeline([trace(*steps, **fields)])


def test_steps_have_their_time_since_the_one_before_and_the_slowest_is_marked() -> None:
    steps = told(ACCEPTED, STORED, ROUTED, WRITTEN, SENT, status=1).steps
    assert [(each.event.kind, each.delta_ms, each.is_slowest) for each in steps] == [
        ("accepted", None, False),
        ("stored", 9, True),
        ("routed", 1, False),
        ("written", 2, False),
        ("sent", 3, False),
    ]


def test_how_long_a_person_takes_is_not_what_is_slow() -> None:
    found = told(ACCEPTED, STORED, ROUTED, WRITTEN, SENT, DELIVERED, status=2)
    assert [each.event.kind for each in found.steps if each.is_slowest] == ["stored"]


def test_the_sentence_says_how_far_it_came_and_what_took_longest() -> None:
    assert (
        told(ACCEPTED, STORED, ROUTED, WRITTEN, status=1).sentence == "sent to 1 of 1 in 12 ms; slowest: storing 9 ms"
    )
    found = told(ACCEPTED, STORED, ROUTED, WRITTEN, SENT, DELIVERED, status=2)
    assert found.sentence == "delivered to 1 of 1 in 300 ms; slowest: storing 9 ms"
    assert (found.status, found.missing) == (MessageStatus.DELIVERED, ())


def test_what_took_longest_after_the_receiver_had_it_is_said_to_come_after() -> None:
    late = step(172, "sent", user_id="U2", conversation="U1_U2", seq=3)
    told_of = told(ACCEPTED, STORED, ROUTED, WRITTEN, late, status=1).sentence
    assert told_of == "sent to 1 of 1 in 12 ms; slowest, after that: noting that it was sent 60 ms"


def test_of_a_group_it_says_no_more_than_is_known() -> None:
    accepted = step(100, "accepted", send_id="U1", receive_id="Gteam", conversation="Gteam")
    routed = step(110, "routed", members=10, online=9)
    found = told(accepted, STORED, routed, WRITTEN, status=1)
    assert found.sentence.startswith("sent to at least 1 of 9 in 12 ms")


@pytest.mark.parametrize(
    ("steps", "fields", "missing"),
    [
        ([ACCEPTED], {}, ("not stored yet", "not routed yet")),
        ([ACCEPTED, STORED], {"status": 0}, ("not routed yet",)),
        (
            [ACCEPTED, STORED, step(110, "routed", members=2, online=0)],
            {"status": 0},
            ("nobody who gets it is connected",),
        ),
        (
            [ACCEPTED, STORED, step(110, "routed", members=2, online=1)],
            {"status": 0},
            ("no receiver has taken it yet: 1 connection was offered it, the sender's own may be among them",),
        ),
        ([], {"status": 1, "evicted": True}, ("its steps are not kept any more",)),
        ([SENT], {"status": 1, "evicted": True}, ("its first steps are not kept any more",)),
        ([ACCEPTED, step(110, "not_stored", text="IntegrityError")], {}, ()),
    ],
)
def test_what_is_missing_is_said(steps: list[Event], fields: dict[str, Any], missing: tuple[str, ...]) -> None:
    assert told(*steps, **fields).missing == missing


def test_what_failed_is_the_sentence() -> None:
    assert told(ACCEPTED, step(110, "not_stored", text="IntegrityError")).sentence == "not stored: IntegrityError"
    assert told(ACCEPTED, step(110, "undeliverable")).sentence == "a call signal that reached nobody"


def test_what_is_on_its_way_is_said() -> None:
    assert told(ACCEPTED).sentence == "accepted, and not stored yet"
    assert told(ACCEPTED, STORED, status=0).sentence.startswith("stored, and sent to nobody yet in 9 ms")


def test_a_message_whose_steps_are_gone_is_known_by_the_store() -> None:
    found = told(status=3, send_id="U1", receive_id="U2", conversation="U1_U2", seq=9, created_ms=50, evicted=True)
    assert found.is_known and found.sentence == "stored, read"
    assert (found.send_id, found.seq, found.created_ms) == ("U1", 9, 50)


def test_nobody_knows_what_never_was() -> None:
    found = told()
    assert not found.is_known and found.sentence == "nobody knows of this message"


def test_several_nodes_are_one_line_in_time_and_no_step_comes_twice() -> None:
    here = trace(ACCEPTED, STORED, ROUTED, status=1, seq=3)
    elsewhere = trace(STORED, step(111, "written", node="n2", user_id="U2"))
    found = timeline([elsewhere, here])
    assert [(each.event.node, each.event.kind) for each in found.steps] == [
        ("n1", "accepted"),
        ("n1", "stored"),
        ("n1", "routed"),
        ("n2", "written"),
    ]


def test_steps_of_one_millisecond_stand_as_the_walk_goes() -> None:
    found = told(step(5, "written"), step(5, "stored"), step(5, "accepted"), step(5, "routed"))
    assert [each.event.kind for each in found.steps] == ["accepted", "stored", "routed", "written"]


def test_a_status_of_a_newer_node_is_no_reason_to_fail() -> None:
    assert told(ACCEPTED, status=9).status is MessageStatus.READ


def test_traces_of_two_messages_are_not_one_story() -> None:
    with pytest.raises(ValueError, match="expected traces of one message, got 2"):
        timeline([trace(), MessageTrace(uuid="8", steps=[])])


def test_each_kind_of_event_is_described() -> None:
    from typing import get_args

    words = {
        kind: describe(step(1, kind, text="t", user_id="U2", place="p/0/1", code=4002)) for kind in get_args(EventKind)
    }
    assert all(words.values()), words
    assert words["produced"] == "p/0/1" and words["closed"] == "U2 4002 t" and words["action"] == "U2: t"
