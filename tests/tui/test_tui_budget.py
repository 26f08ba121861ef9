"""The dashboard stays cheap beside a busy node, and keeps no more than it says, however much happens."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from simulated_node import SimulatedNode, feed, watched

from benchmarks.dashboard import Dashboard
from benchmarks.servers import BusyNode
from kama.monitor.messages import MESSAGES_MAX
from kama.monitor.store import EVENTS_MAX, FAILURES_MAX, MonitorStore
from kama.monitor_protocol import Event

# The budgets of benchmarks/monitor.py, and room for a machine that has other things to do.
CPU_PERCENT = 8 * 3
OUTPUT_KIB_S = 25 * 3
SECONDS = 6.0
# A fifth of what as many messages again would take, were they kept.
GROWTH_MAX = 512 * 1024


@pytest.mark.heavy
def test_it_is_cheap_beside_a_busy_node() -> None:
    with BusyNode(5_000, 2_000) as node, Dashboard(node.url, 80, 24) as dashboard:
        dashboard.wait_until_live()
        used, written, began = dashboard.cpu_seconds(), dashboard.written, time.monotonic()
        time.sleep(SECONDS)
        took = time.monotonic() - began
        drawn_kib_s = (dashboard.written - written) / 1024 / took
        assert 1 < drawn_kib_s < OUTPUT_KIB_S
        assert 100 * (dashboard.cpu_seconds() - used) / took < CPU_PERCENT


def told(node: SimulatedNode, store: MonitorStore, count: int, first: int) -> None:
    """`count` messages are accepted and then not stored."""
    for number in range(first, first + count):
        fields = {"at_ms": node.now_ms, "node": node.name, "uuid": str(number)}
        accepted = Event(kind="accepted", conversation="U1_U2", send_id="U1", receive_id="U2", **fields)
        feed(store, node, [node.events(accepted, Event(kind="not_stored", conversation="U1_U2", **fields))])


def test_what_is_kept_of_events_is_bounded() -> None:
    node = SimulatedNode()
    store = watched(node)
    tracemalloc.start()
    try:
        told(node, store, 6_000, first=10_000)
        before, _ = tracemalloc.get_traced_memory()
        told(node, store, 6_000, first=20_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(store.events), len(store.failures), len(store.messages)) == (EVENTS_MAX, FAILURES_MAX, MESSAGES_MAX)
    assert after < before + GROWTH_MAX
