"""Names of inboxes: legal for Kafka, and never one for two nodes."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from kama.server.kafka.topics import inbox_prefix, inbox_topic

_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)
# Names that differ in little, and only in what has to be written otherwise.
_alike = st.text("a_.:-3é", min_size=1, max_size=100)
_topics = st.from_regex(r"[A-Za-z0-9._-]{1,100}", fullmatch=True)


@given(_topics, _names | _alike)
def test_an_inbox_has_a_name_that_kafka_takes(topic: str, node: str) -> None:
    name = inbox_topic(topic, node)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name)
    assert name.startswith(inbox_prefix(topic))


@given(_names | _alike, _names | _alike)
def test_two_nodes_have_two_inboxes(one: str, two: str) -> None:
    names = {inbox_topic("chat_message", node) for node in (one, two)}
    assert len(names) == len({one, two})
    # Kafka takes `.` and `_` for the same when it looks whether a topic is there.
    assert len({name.replace(".", "_") for name in names}) == len(names)


def test_an_address_stays_readable() -> None:
    assert inbox_topic("chat", "host-1:8000") == "chat.inbox.host-1_3a8000"


def test_names_that_are_too_long_stay_apart() -> None:
    one, two = (inbox_topic("t" * 100, "é" * 99 + last) for last in "ab")
    assert one != two and len(one) < 249
