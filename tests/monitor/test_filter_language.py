"""The filter language: each term, what it holds for, and what a wrong one is told."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kama.errors import BadParameter
from kama.monitor.messages import Message
from kama.monitor_filter import FIELDS, WORDS, parse_filter
from kama.monitor_protocol import FAILURES, Client, Closed, Event, EventKind


def client(**fields: Any) -> Client:
    return Client(**{"id": "c1", "user_id": "U12", "node": "n1", "device": "Phone", "address": "10.0.0.7:80"} | fields)


def event(kind: EventKind = "accepted", **fields: Any) -> Event:
    return Event(at_ms=1, kind=kind, **fields)


NOW_MS = 1_795_530_000_000


def ago(seconds: float) -> int:
    return int(NOW_MS - seconds * 1000)


@pytest.mark.parametrize(
    ("text", "item", "holds"),
    [
        ("", client(), True),
        ("u12", client(), True),
        ("phone", client(), True),
        ("10.0.0", client(), True),
        ("nobody", client(), False),
        ("user:u1", client(), True),
        ("user=U1", client(), False),
        ("user=u12", client(), True),
        ("node=n1", client(), True),
        ("node=n", client(), False),
        ("id=c1", client(), True),
        ("id=c1", event(connection="c1"), True),
        ("user=U12", event(send_id="U12"), True),
        ("user=U12", event(receive_id="U12"), True),
        ("from=U12 to=U1", event(send_id="U12", receive_id="U1"), True),
        ("from=U12 to=U1", event(send_id="U1", receive_id="U12"), False),
        ("group=Gteam", event(conversation="Gteam"), True),
        ("kind=stored", event("stored"), True),
        ("error:full", event("dropped", text="queue FULL"), True),
        ("error:full", client(error="queue full"), True),
        ("queue>80", client(depth=81), True),
        ("queue>80", client(depth=80), False),
        ("queue>=80", client(depth=80), True),
        ("queue<80", client(depth=79), True),
        ("queue<=80", client(depth=80), True),
        ("queue=80", client(depth=80), True),
        ("queue:80", client(depth=80), True),
        ("in>0.5", client(in_rate=0.6), True),
        ("seq=3", event(seq=3), True),
        ("code=4008", Closed(id="c", user_id="U1", node="n", code=4008), True),
        ("high>=0", event(), False),  # an event has no such, whatever is asked of it
        ("idle<1h", event(), False),
        ("idle>30s", client(last_ms=ago(40)), True),
        ("idle>30s", client(last_ms=ago(20)), False),
        ("idle>30s", client(last_ms=0, since_ms=ago(20)), False),  # it came a moment ago, and has said nothing yet
        ("since<1m", client(since_ms=ago(30)), True),
        ("took>5ms", event("stored", took_ms=6.0), True),
        ("took>5ms", event("stored", took_ms=4.0), False),
        ("!user=U12", client(), False),
        ("!user=U13", client(), True),
        ("!!user=U12", client(), True),
        ("user=U12 node=n2", client(), False),
        ("  user=U12   node=n1 ", client(), True),
        ("slow", client(depth=80, capacity=100), True),
        ("slow", client(depth=79, capacity=100), False),
        ("slow", client(), False),
        ("slow", event(), False),
        ("dropping", client(dropped=1), True),
        ("dropping", client(), False),
        ("idle", client(last_ms=ago(61)), True),
        ("idle", client(last_ms=ago(50)), False),
        ("idle", event(), False),
        ("failed", event("refused"), True),
        ("failed", event("stored"), False),
        ("王", client(device="王小明"), True),
    ],
)
def test_a_filter_lets_through_what_it_says(text: str, item: Any, holds: bool) -> None:
    assert parse_filter(text, lambda: NOW_MS)(item) is holds


def test_ages_count_to_now() -> None:
    just_now = int(time.time() * 1000)
    assert parse_filter("idle<1h")(client(last_ms=just_now)) and not parse_filter("idle")(client(last_ms=just_now))


@pytest.mark.parametrize("kind", sorted(FAILURES))
def test_failed_is_every_failure_and_a_message_that_failed(kind: EventKind) -> None:
    assert parse_filter("failed")(event(kind))
    message = Message("7", 1)
    assert not parse_filter("failed")(message)
    message.take(event(kind, uuid="7"))
    assert parse_filter("failed")(message)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour=red", "expected a field of user, from, to"),
        ("queue>many", "expected a number behind queue, got 'many'"),
        ("queue>nan", "expected a number behind queue, got 'nan'"),
        ("queue>1e999", "expected a number behind queue, got '1e999'"),
        ("queue>1_000", "expected a number behind queue"),
        ("idle>soon", "idle: expected a duration such as 10s"),
        ("user>U1", "expected user:text or user=text, got user>"),
        ("!", "expected a term behind !, got nothing"),
        ("node=n1 !", "expected a term behind !, got nothing"),
    ],
)
def test_a_wrong_term_is_told_what_was_expected(text: str, told: str) -> None:
    with pytest.raises(BadParameter) as error:
        parse_filter(text)
    assert told in error.value.message and error.value.field == "filter"


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_says_why_not(text: str) -> None:
    try:
        passes = parse_filter(text)
    except BadParameter as error:
        assert "expected" in error.message
    else:
        assert passes(client()) in (True, False) and passes(event()) in (True, False)


@given(st.sampled_from([*FIELDS, *WORDS]), st.sampled_from([":", "=", "!=", ">", "<", ">=", "<="]), st.text(max_size=9))
def test_any_field_with_any_value_is_a_filter_or_says_why_not(name: str, operator: str, value: str) -> None:
    try:
        assert parse_filter(f"{name}{operator}{value}")(client()) in (True, False)
    except BadParameter as error:
        assert "expected" in error.message
