"""MonitorStore: what it knows after each kind of frame, and what it forgets."""

from __future__ import annotations

import pytest
from simulated_node import LIVE, START_MS, SimulatedNode, feed, watched

from kama.monitor.frames import Left, Rewound
from kama.monitor.link import Link, LinkState
from kama.monitor.store import CLOSED_MAX, EVENTS_MAX, FAILURES_MAX, SOURCES_MAX, Changes
from kama.monitor.watched import NODES_MAX
from kama.monitor_protocol import ROWS_MAX, Client, Event, History, Node, Point, Result, Snap

LOST = Link(state=LinkState.STALE, since_ms=START_MS)


@pytest.fixture
def node() -> SimulatedNode:
    node = SimulatedNode()
    node.connect("c1", "U1", depth=3)
    return node


def point(at_ms: int, accepted: float = 0) -> Point:
    return Point(at_ms, accepted, 0, 0, 0, 0, 0, 0, 0, None, 0)


def test_a_snap_is_all_there_is(node: SimulatedNode) -> None:
    store = watched(node)
    node.connect("c2", "U2")
    node.disconnect("c1")
    changes = feed(store, node, [node.snap()])
    assert dict(store.clients) == node.clients and dict(store.nodes) == {"n1": node.node}
    assert (store.matched, store.total) == (1, 1)
    assert changes & Changes.CLIENTS and changes & Changes.NODES and changes & Changes.CLOSED


def test_a_delta_adds_changes_and_removes(node: SimulatedNode) -> None:
    store = watched(node)
    node.connect("c2", "U2")
    node.connect("c1", "U1", depth=9)
    feed(store, node, [node.delta()])
    assert dict(store.clients) == node.clients
    node.disconnect("c1")
    feed(store, node, [node.delta()])
    assert set(store.clients) == {"c2"} and [closed.id for closed in store.closed] == ["c1"]


def test_a_delta_after_a_lost_one_is_not_applied_and_the_source_needs_a_snap(node: SimulatedNode) -> None:
    store = watched(node)
    node.connect("c2", "U2")
    node.delta()  # lost
    node.connect("c3", "U3")
    assert feed(store, node, [node.delta()]) == Changes.LINK
    assert set(store.clients) == {"c1"} and store.needs_snap("http://n1")
    feed(store, node, [node.snap()])
    assert set(store.clients) == {"c1", "c2", "c3"} and not store.needs_snap("http://n1")


def test_a_delta_that_changes_an_older_state_than_the_last_is_not_applied(node: SimulatedNode) -> None:
    store = watched(node)
    feed(store, node, [node.delta()])
    node.connect("c2", "U2")
    delta = node.delta()
    delta.base = 1
    feed(store, node, [delta])
    assert set(store.clients) == {"c1"} and store.needs_snap("http://n1")


def test_frames_that_come_again_change_nothing(node: SimulatedNode) -> None:
    store = watched(node)
    node.connect("c2", "U2")
    event = Event(at_ms=1, kind="opened", node="n1")
    frames = [node.delta(), node.events(event), node.snap()]
    feed(store, node, frames)
    assert feed(store, node, frames) == Changes.NONE
    assert list(store.events) == [event] and not store.needs_snap("http://n1")


def test_events_are_news_also_behind_a_gap(node: SimulatedNode) -> None:
    store = watched(node)
    node.delta()  # lost
    feed(store, node, [node.events(Event(at_ms=1, kind="dropped", node="n1"), sampled_out=4, lost=2)])
    assert len(store.events) == len(store.failures) == 1
    assert (store.sources["http://n1"].sampled_out, store.sources["http://n1"].lost) == (4, 2)
    assert store.needs_snap("http://n1")


def test_failures_outlive_a_flood_of_other_events(node: SimulatedNode) -> None:
    store = watched(node)
    feed(store, node, [node.events(Event(at_ms=1, kind="alert", node="n1", text="the store fails"))])
    flood = [Event(at_ms=2, kind="opened", node="n1")] * EVENTS_MAX
    feed(store, node, [node.events(*flood)])
    assert [event.kind for event in store.failures] == ["alert"] and len(store.events) == EVENTS_MAX


def test_everything_is_bounded() -> None:
    node = SimulatedNode()
    store = watched(node)
    many = Snap(
        seq=99,
        at_ms=node.now_ms + 1,
        interval_ms=250,
        nodes=[Node(name=f"n{at}", epoch="e") for at in range(NODES_MAX + 5)],
        clients=[Client(id=f"c{at}", user_id="U1", node="n1") for at in range(ROWS_MAX + 5)],
    )
    feed(store, node, [many])
    assert len(store.clients) == ROWS_MAX and len(store.nodes) == NODES_MAX
    node = SimulatedNode()
    store = watched(node)
    for at in range(CLOSED_MAX + 5):
        node.connect(f"c{at}")
        node.disconnect(f"c{at}")
        feed(store, node, [node.delta(), node.events(Event(at_ms=at, kind="refused", node="n1"))])
    assert len(store.closed) == CLOSED_MAX and len(store.failures) == FAILURES_MAX
    assert store.closed[0].id == f"c{CLOSED_MAX + 4}"
    for at in range(SOURCES_MAX + 5):
        store.apply(f"s{at}", LIVE, 1)
    assert len(store.sources) == SOURCES_MAX


# --- several sources -----------------------------------------------------------------------------------


def test_what_a_node_says_of_itself_goes_before_what_others_say_later() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    one.change(users=5)
    two.others["n1"] = Node(name="n1", epoch="e1", users=3, beat_ms=START_MS + 99_000)
    store = watched(one, two)
    assert store.nodes["n1"].users == 5
    store.apply("http://n1", LOST, one.now_ms)
    assert store.nodes["n1"].users == 3  # nobody knows it better now


def test_of_others_the_later_beat_counts() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    one.others["n3"] = Node(name="n3", epoch="e", users=1, beat_ms=START_MS + 1)
    two.others["n3"] = Node(name="n3", epoch="e", users=2, beat_ms=START_MS + 2)
    assert watched(one, two).nodes["n3"].users == watched(two, one).nodes["n3"].users == 2


def test_two_sources_of_one_node_tell_each_event_once(node: SimulatedNode) -> None:
    store = watched(node)
    feed(store, node, [node.hello(), node.snap()], source="http://other-name")
    store.apply("http://other-name", LIVE, node.now_ms)
    events = node.events(Event(at_ms=1, kind="accepted", node="n1", uuid="7"))
    feed(store, node, [events])
    feed(store, node, [events], source="http://other-name")
    assert len(store.events) == 1 and len(store.messages) == 1


def test_a_source_that_left_takes_its_rows_along() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    one.connect("c1")
    two.connect("c2")
    store = watched(one, two)
    assert store.apply("http://n1", Left(), one.now_ms) & Changes.CLIENTS
    assert set(store.clients) == {"c2"} and set(store.nodes) == {"n2"} and set(store.sources) == {"http://n2"}


def test_after_a_rewind_nothing_is_left(node: SimulatedNode) -> None:
    store = watched(node)
    feed(store, node, [node.events(Event(at_ms=1, kind="accepted", node="n1", uuid="7"))])
    store.apply("", Rewound(), 1)
    assert not (store.sources or store.clients or store.nodes or store.events or len(store.messages))


def test_the_age_counts_from_the_last_frame_and_no_link_makes_it_younger(node: SimulatedNode) -> None:
    store = watched(node)
    store.apply("http://n1", LOST, node.now_ms + 5_000)
    assert store.age_ms("http://n1", node.now_ms + 7_000) == 7_000
    assert store.age_ms("nobody", 1) is None


def test_another_life_of_the_node_has_none_of_the_old_connections(node: SimulatedNode) -> None:
    store = watched(node)
    node.restart("e2")
    feed(store, node, [node.hello()])
    assert not store.clients


def test_the_same_life_keeps_its_connections_until_the_snap(node: SimulatedNode) -> None:
    store = watched(node)
    feed(store, node, [node.hello()])
    assert set(store.clients) == {"c1"} and store.needs_snap("http://n1")


def test_a_result_changes_nothing_but_is_told(node: SimulatedNode) -> None:
    assert feed(watched(node), node, [Result(request="1")]) == Changes.RESULT


# --- rates and series ----------------------------------------------------------------------------------


def test_rates_come_from_the_last_two_frames(node: SimulatedNode) -> None:
    store = watched(node)
    node.count(accepted=50)
    feed(store, node, [node.delta()])
    assert store.rates("n1")["accepted"] == 200 and store.totals().rates["accepted"] == 200
    feed(store, node, [node.delta()])  # nothing came since
    assert store.rates("n1")["accepted"] == 0


def test_what_rises_in_batches_has_a_steady_mean(node: SimulatedNode) -> None:
    store = watched(node)
    means: list[float] = []
    for number in range(24):
        node.count(folded=100 * (number % 2))  # twice a second, at four frames
        feed(store, node, [node.delta()])
        means.append(store.mean_rates("n1")["folded"])
    assert node.interval_ms == 250 and {store.rates("n1")["folded"]} <= {0, 400}
    assert set(means[8:]) == {200}


def test_a_mean_ends_with_the_life_that_it_is_of(node: SimulatedNode) -> None:
    store = watched(node)
    node.count(folded=100)
    feed(store, node, [node.delta()])
    node.restart("e2")
    feed(store, node, [node.hello(), node.snap()])
    assert store.mean_rates("n1")["folded"] == 0


def test_a_restart_is_no_negative_rate(node: SimulatedNode) -> None:
    node.count(accepted=1_000)
    store = watched(node)
    node.restart("e2")
    node.count(accepted=10)
    feed(store, node, [node.hello(), node.snap()])
    assert store.rates("n1")["accepted"] == 0


def test_the_rates_of_a_node_that_is_not_seen_are_not_shown_as_current(node: SimulatedNode) -> None:
    store = watched(node)
    node.count(accepted=50)
    feed(store, node, [node.delta()])
    store.apply("http://n1", LOST, node.now_ms)
    assert store.rates("n1")["accepted"] == store.totals().rates["accepted"] == 0
    assert store.totals().counters["accepted"] == 50


def test_rates_of_other_nodes_count_by_their_beats() -> None:
    one = SimulatedNode("n1")
    other = SimulatedNode("n2")
    one.others["n2"] = other.node
    store = watched(one)
    other.count(stored=30)
    one.others["n2"] = Node(
        name="n2", epoch=other.node.epoch, counters=other.node.counters, beat_ms=other.node.beat_ms + 3_000
    )
    for _ in range(4):
        feed(store, one, [one.delta()])
    assert store.rates("n2")["stored"] == 10


def test_there_is_a_point_a_second_behind_the_history(node: SimulatedNode) -> None:
    store = watched(node)
    past = [point(START_MS - 1_000 * at, accepted=at) for at in (3, 2, 1)]
    assert feed(store, node, [History(points=past)]) == Changes.HISTORY
    for _ in range(12):
        node.count(accepted=10)
        feed(store, node, [node.delta()])
    points = store.points("n1")
    seconds = [each.at_ms // 1000 for each in points]
    assert seconds == sorted(set(seconds)) and len(points) == 3 + 3
    assert [each.accepted for each in points[:3]] == [3, 2, 1] and points[-1].accepted == 40


def test_history_that_comes_again_doubles_no_point(node: SimulatedNode) -> None:
    store = watched(node)
    past = [point(START_MS - 1_000 * at) for at in (3, 2, 1)]
    feed(store, node, [History(points=past)])
    feed(store, node, [History(points=past)])
    assert [each.at_ms for each in store.points("n1")] == [each.at_ms for each in past]


# --- messages ------------------------------------------------------------------------------------------


def life(*kinds: str) -> list[Event]:
    return [
        Event(at_ms=START_MS + at, kind=kind, node="n1", uuid="7", send_id="U1", receive_id="U2")  # type: ignore[arg-type]
        for at, kind in enumerate(kinds)
    ]


def test_a_message_rises_with_its_events_and_never_falls(node: SimulatedNode) -> None:
    store = watched(node)
    feed(store, node, [node.events(*life("accepted", "stored", "routed", "written", "sent", "read", "delivered"))])
    message = store.messages.get("7")
    assert message is not None and message.status == "read" and message.times["stored"] == START_MS + 1


def test_a_message_that_failed_says_why(node: SimulatedNode) -> None:
    store = watched(node)
    feed(
        store, node, [node.events(*life("accepted"), Event(at_ms=START_MS + 9, kind="not_stored", uuid="7", text="x"))]
    )
    message = store.messages.get("7")
    assert message is not None and (message.status, message.error, message.kind) == ("failed", "x", "not_stored")


def test_the_newest_message_comes_first(node: SimulatedNode) -> None:
    store = watched(node)
    feed(store, node, [node.events(*(Event(at_ms=at, kind="accepted", uuid=str(at)) for at in (1, 2, 3)))])
    assert [message.uuid for message in store.messages] == ["3", "2", "1"]
