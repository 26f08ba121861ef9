"""Whatever happens to the frames on their way: nothing breaks, and the next snap makes it right."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_node import LIVE, SimulatedNode

from kama.monitor.store import MonitorStore
from kama.monitor_protocol import Event, NodeFrame, decode_node_frame

STEPS = st.lists(
    st.sampled_from(["connect", "change", "disconnect", "count", "delta", "events", "snap", "hello", "restart"]),
    min_size=1,
    max_size=40,
)
FATES = st.lists(st.sampled_from(["passes", "passes", "passes", "lost", "twice", "late"]), max_size=40)


def frames_of(node: SimulatedNode, steps: list[str], rnd: random.Random) -> list[NodeFrame]:
    frames: list[NodeFrame] = [node.hello(), node.snap()]
    for at, step in enumerate(steps):
        match step:
            case "connect":
                node.connect(f"c{at}", f"U{rnd.randrange(5)}")
            case "change" if node.clients:
                node.connect(rnd.choice(sorted(node.clients)), "U9", depth=at)
            case "disconnect" if node.clients:
                node.disconnect(rnd.choice(sorted(node.clients)))
            case "count":
                node.count(accepted=rnd.randrange(100))
            case "delta":
                frames.append(node.delta())
            case "events":
                frames.append(node.events(Event(at_ms=node.now_ms, kind="accepted", node=node.name, uuid=str(at))))
            case "snap":
                frames.append(node.snap())
            case "hello":
                frames += [node.hello(), node.snap()]
            case "restart":
                node.restart(f"e{at}")
                frames += [node.hello(), node.snap()]
    return frames


def on_the_way(frames: list[NodeFrame], fates: list[str]) -> list[NodeFrame]:
    arrived: list[NodeFrame] = []
    late: list[NodeFrame] = []
    for at, frame in enumerate(frames):
        fate = fates[at] if at < len(fates) else "passes"
        if fate == "late":
            late.append(frame)
            continue
        arrived += [frame] * {"lost": 0, "passes": 1, "twice": 2}[fate]
        if late and at % 2:
            arrived.append(late.pop())
    return arrived + late


def shape(store: MonitorStore) -> tuple[object, ...]:
    return dict(store.nodes), dict(store.clients), store.total


@settings(max_examples=150, deadline=None)
@given(STEPS, FATES, st.randoms(use_true_random=False))
def test_after_the_next_snap_the_store_knows_what_the_node_knows(
    steps: list[str], fates: list[str], rnd: random.Random
) -> None:
    node, store = SimulatedNode(), MonitorStore()
    store.apply("s", LIVE, node.now_ms)
    for frame in on_the_way(frames_of(node, steps, rnd), fates):
        store.apply("s", frame, node.now_ms)
        store.totals()
    for frame in (node.hello(), node.snap()):
        store.apply("s", frame, node.now_ms)
    assert shape(store) == ({node.name: node.node}, node.clients, len(node.clients))
    node.connect("last")
    store.apply("s", node.delta(), node.now_ms)
    assert dict(store.clients) == node.clients


@settings(max_examples=100, deadline=None)
@given(STEPS, FATES, st.randoms(use_true_random=False))
def test_rows_are_the_nodes_or_the_source_says_that_it_needs_a_snap(
    steps: list[str], fates: list[str], rnd: random.Random
) -> None:
    """A frame that was lost is either mended by a later one, or known to be missing."""
    node, store = SimulatedNode(), MonitorStore()
    store.apply("s", LIVE, node.now_ms)
    steps = [step for step in steps if step not in ("hello", "restart")]
    frames = frames_of(node, steps, rnd)
    last = node.delta()
    for frame in [frames[0], *on_the_way(frames[1:], ["lost" if fate == "late" else fate for fate in fates]), last]:
        store.apply("s", frame, node.now_ms)
    assert store.needs_snap("s") or dict(store.clients) == node.clients


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8).map("new_".__add__), st.integers() | st.text(), max_size=3))
def test_fields_that_only_newer_nodes_send_are_skipped(more: dict[str, object]) -> None:
    node = SimulatedNode()
    node.connect("c1")
    snap = node.snap()
    document = msgspec.to_builtins(snap)
    for part in (document, document["nodes"][0], document["nodes"][0]["counters"], document["clients"][0]):
        part |= more
    assert decode_node_frame(msgspec.json.encode(document)) == snap
