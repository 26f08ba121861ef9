"""Judge: each rule appears, names its since, and disappears; none flickers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from simulated_node import LIVE, START_MS, SimulatedNode, feed, watched

from kama.monitor.link import Link, LinkState
from kama.monitor.rules import CLEAR_MS, Cause, Judge, Level, Verdict
from kama.monitor.store import MonitorStore
from kama.monitor_protocol import Node, Partition, Queue


@dataclass
class Scene:
    """A node that is watched and judged while its clock goes on."""

    node: SimulatedNode
    store: MonitorStore
    judge: Judge

    def go_on(self, ms: int, each: Callable[[SimulatedNode], None] = lambda node: None) -> Verdict:
        verdict = self.judge.verdict(self.store, self.node.now_ms)
        for _ in range(ms // self.node.interval_ms):
            each(self.node)
            feed(self.store, self.node, [self.node.delta()])
            verdict = self.judge.verdict(self.store, self.node.now_ms)
        return verdict

    def only(self, verdict: Verdict) -> Cause:
        assert len(verdict.causes) == 1, verdict
        return verdict.causes[0]


@pytest.fixture
def scene() -> Scene:
    node = SimulatedNode()
    return Scene(node, watched(node), Judge())


def test_all_well_is_ok(scene: Scene) -> None:
    verdict = scene.go_on(5_000, lambda node: node.count(accepted=100, stored=100, written=200))
    assert verdict == Verdict(Level.OK) and verdict.since_ms is None


@dataclass
class Trouble:
    """What begins a trouble, what keeps it up at each frame, what ends it; and what is said of it meanwhile."""

    words: str
    screen: str
    begin: Callable[[SimulatedNode], None]
    end: Callable[[SimulatedNode], None]
    each: Callable[[SimulatedNode], None] = lambda node: None
    level: Level = Level.DEGRADED


def queue(name: str, depth: int, capacity: int = 100) -> Callable[[SimulatedNode], None]:
    return lambda node: node.change(queues={name: Queue(depth=depth, capacity=capacity)})


def troubles(**words: str) -> Callable[[SimulatedNode], None]:
    return lambda node: node.change(troubles=words)


def nothing(node: SimulatedNode) -> None:
    """Nothing happens."""


def second_node(version: str) -> Callable[[SimulatedNode], None]:
    def there_is(node: SimulatedNode) -> None:
        node.others["n2"] = Node(name="n2", epoch="e", version=version, beat_ms=node.now_ms)

    return there_is


TROUBLES = [
    Trouble(
        "1 connection at 80/100 of the send queue (U7)",
        "clients",
        lambda node: node.connect("c1", "U7", depth=80, capacity=100),
        lambda node: node.connect("c1", "U7", depth=10, capacity=100),
    ),
    Trouble("frames find no room on n1: 8/s", "clients", nothing, nothing, lambda node: node.count(dropped=2)),
    Trouble("signals are dropped on n1", "clients", nothing, nothing, lambda node: node.count(signals_dropped=2)),
    Trouble("messages are not stored on n1", "messages", nothing, nothing, lambda node: node.count(not_stored=1)),
    Trouble("the store fails on n1", "messages", nothing, nothing, lambda node: node.count(store_failures=1)),
    Trouble("90/100 messages wait to be stored on n1", "queues", queue("transmit", 90), queue("transmit", 0)),
    Trouble("status writer of n1: falls behind, 95 wait", "queues", queue("status", 95), queue("status", 0)),
    Trouble(
        "status writer of n1: 1.4 s a batch",
        "queues",
        lambda node: node.change(status_ms=1_400),
        lambda node: node.change(status_ms=4),
    ),
    Trouble("store of n1: failing: x", "queues", troubles(store="failing: x"), troubles(), level=Level.DOWN),
    Trouble("cache of n1: away", "queues", troubles(cache="away"), troubles()),
    Trouble("broker of n1: away", "queues", troubles(broker="away"), troubles()),
    Trouble(
        "n1 reacts 250 ms late",
        "nodes",
        lambda node: node.change(loop_lag_ms=250),
        lambda node: node.change(loop_lag_ms=1),
    ),
    Trouble("n1 refuses logins: 8/s", "log", nothing, nothing, lambda node: node.count(logins_refused=2)),
    Trouble(
        "node n1 shuts down", "nodes", lambda node: node.change(state="draining"), lambda node: node.change(state="up")
    ),
    Trouble(
        "no node stores anything",
        "queues",
        lambda node: node.change(mode="kafka"),
        lambda node: node.change(partitions=[Partition(partition=0, position=1, lag=0)]),
    ),
    Trouble("nodes run different versions: 1, 2", "nodes", second_node("2"), second_node("1")),
    Trouble(
        "node n2 is gone",
        "nodes",
        lambda node: node.others.update(n2=Node(name="n2", epoch="e", state="gone")),
        lambda node: node.others.clear() or node.change(state="up"),
    ),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.words)
def test_each_trouble_appears_keeps_its_since_and_disappears(scene: Scene, trouble: Trouble) -> None:
    scene.go_on(5_000)
    began_ms = scene.node.now_ms
    trouble.begin(scene.node)
    cause = scene.only(scene.go_on(12_000, trouble.each))
    assert trouble.words in cause.text and cause.screen == trouble.screen and cause.level is trouble.level
    assert began_ms < cause.since_ms <= began_ms + 2 * scene.node.interval_ms
    assert scene.only(scene.go_on(3_000, trouble.each)).since_ms == cause.since_ms
    trouble.end(scene.node)
    if "n2 is gone" in trouble.words:  # a delta cannot take a node away
        feed(scene.store, scene.node, [scene.node.snap()])
    assert scene.only(scene.go_on(CLEAR_MS - 500)).since_ms == cause.since_ms
    assert scene.go_on(2_000) == Verdict(Level.OK)


def test_a_queue_counts_only_once_it_was_full_for_five_seconds(scene: Scene) -> None:
    scene.node.connect("c1", "U7", depth=99, capacity=100)
    assert scene.go_on(4_500).level is Level.OK
    assert scene.go_on(1_500).level is Level.DEGRADED


def test_a_queue_that_is_full_now_and_then_does_not_count(scene: Scene) -> None:
    def now_and_then(node: SimulatedNode) -> None:
        full = node.now_ms // 1_000 % 2
        node.connect("c1", "U7", depth=99 * full, capacity=100)

    assert scene.go_on(20_000, now_and_then).level is Level.OK


def test_a_trouble_that_comes_and_goes_does_not_flicker(scene: Scene) -> None:
    def now_and_then(node: SimulatedNode) -> None:
        node.count(dropped=node.now_ms // 1_000 % 2)

    scene.go_on(2_000, now_and_then)
    since_ms = scene.go_on(250, now_and_then).since_ms
    levels = set()
    for _ in range(40):
        verdict = scene.go_on(250, now_and_then)
        levels.add((verdict.level, verdict.since_ms))
    assert levels == {(Level.DEGRADED, since_ms)}


@pytest.mark.parametrize(
    ("name", "words"), [("transmit", "messages wait to be stored on n1, rising"), ("status", "falls behind")]
)
def test_a_queue_without_a_bound_counts_when_it_rises(scene: Scene, name: str, words: str) -> None:
    depth = 0

    def more(node: SimulatedNode) -> None:
        nonlocal depth
        depth += 5
        queue(name, depth, capacity=0)(node)

    assert words in scene.only(scene.go_on(12_000, more)).text
    assert scene.go_on(15_000).level is Level.OK  # as deep as ever, but it rises no more


def test_lag_counts_when_it_rises_and_not_when_it_is_large(scene: Scene) -> None:
    def lag(records: int) -> None:
        scene.node.change(mode="kafka", partitions=[Partition(partition=0, position=1, lag=records)])

    lag(5_000)
    assert scene.go_on(15_000).level is Level.OK
    records = 5_000

    def more(node: SimulatedNode) -> None:
        nonlocal records
        records += 10
        lag(records)

    assert "records wait in Kafka, rising" in scene.only(scene.go_on(15_000, more)).text


# --- links ---------------------------------------------------------------------------------------------


def test_without_any_current_source_all_is_down(scene: Scene) -> None:
    lost = Link(state=LinkState.GONE, since_ms=START_MS, cause="Connection refused")
    scene.store.apply("http://n1", lost, scene.node.now_ms)
    verdict = scene.judge.verdict(scene.store, scene.node.now_ms)
    assert verdict.level is Level.DOWN
    assert scene.only(verdict).text == "n1 is not seen: gone, Connection refused"
    scene.store.apply("http://n1", LIVE, scene.node.now_ms)
    assert scene.go_on(CLEAR_MS + 500).level is Level.OK


def test_old_values_of_a_node_that_is_not_seen_cause_nothing_more(scene: Scene) -> None:
    scene.node.connect("c1", "U7", depth=99, capacity=100)
    scene.node.change(loop_lag_ms=900, troubles={"cache": "away"})
    assert len(scene.go_on(8_000).causes) == 3
    scene.store.apply("http://n1", Link(state=LinkState.STALE), scene.node.now_ms)
    scene.judge.verdict(scene.store, scene.node.now_ms)
    verdict = scene.judge.verdict(scene.store, scene.node.now_ms + CLEAR_MS + 1)
    assert "is not seen" in scene.only(verdict).text


def test_one_of_two_links_lost_is_half_as_bad() -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    store = watched(one, two)
    store.apply("http://n1", Link(state=LinkState.STALE), one.now_ms)
    assert Judge().verdict(store, one.now_ms).level is Level.DEGRADED


def test_a_slow_link_is_said_after_a_while(scene: Scene) -> None:
    scene.store.apply("http://n1", Link(state=LinkState.SLOW, cause="every 2 s"), scene.node.now_ms)
    assert scene.go_on(2_000).level is Level.OK
    assert scene.only(scene.go_on(2_000)).text == "slow link to n1: every 2 s"


def test_before_the_first_frame_nothing_is_known() -> None:
    store = MonitorStore()
    store.apply("http://n1", Link(), 1)
    verdict = Judge().verdict(store, 1)
    assert verdict.level is Level.DOWN and verdict.causes[0].text == "no data yet from http://n1"


def test_the_worst_comes_first_and_then_the_oldest(scene: Scene) -> None:
    scene.go_on(3_000, lambda node: node.count(dropped=1))
    troubles(cache="away", store="failing")(scene.node)
    texts = [cause.text for cause in scene.go_on(1_000, lambda node: node.count(dropped=1)).causes]
    assert [text.split()[0] for text in texts] == ["store", "frames", "cache"]


def test_who_looks_once_is_told_at_once() -> None:
    node = SimulatedNode()
    node.connect("c1", "U7", depth=99, capacity=100)
    assert Judge(patient=False).verdict(watched(node), node.now_ms).level is Level.DEGRADED
