"""`/metrics` in Prometheus text. The hot path only counts; what is exported is read when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from kama.server.app import Node


def _counters(node: Node) -> dict[str, tuple[str, float]]:
    chat, cache = node.chat.counters, node.cache
    return {
        "messages_accepted": ("Messages published to the transmit queue.", chat.accepted),
        "messages_stored": ("Messages committed.", chat.stored),
        "messages_duplicate": ("Messages that were stored already.", chat.duplicates),
        "messages_not_stored": ("Messages the store refused for good.", chat.not_stored),
        "messages_offered": ("Messages offered to connections.", node.delivery.offered),
        "signals": ("Call signals passed on without being stored.", chat.ephemeral),
        "signals_dropped": ("Call signals that reached nobody.", node.delivery.ephemeral_dropped),
        "frames_refused": ("Frames answered with an error.", node.sessions.refused_frames),
        "rate_limited": ("Messages over their sender's limit.", chat.rate_limited),
        "store_failures": ("Transactions tried again.", chat.store_failures),
        "store_batches": ("Transactions that stored messages.", chat.batches),
        "cache_hits": ("History reads answered by the cache.", cache.hits),
        "cache_misses": ("History reads the cache could not answer.", cache.misses),
        "cache_tasks_dropped": ("Cache tasks that found no room or no Redis.", cache.dropped),
    }


def _gauges(node: Node) -> dict[str, tuple[str, float]]:
    log: dict[str, tuple[str, float]] = {}
    if node.log is not None:
        log["log_depth"] = ("Messages logged and not yet in the database.", node.log.unfolded)
    return log | {
        "connections": ("Open connections.", len(node.registry)),
        "users": ("Users with an open connection.", node.registry.users),
        "transmit_depth": ("Messages accepted and not yet stored.", node.chat.depth),
        "send_back_depth": ("Frames in all send-back queues.", node.journal.traffic.queued),
        "status_depth": ("Marks not yet committed.", node.status.depth),
        "cache_depth": ("Cache tasks waiting.", node.cache.depth),
        "cache_up": ("1 while the history cache can be used.", node.cache.available),
        "store_failing": ("1 while transactions fail.", node.chat.store_failing),
        "draining": ("1 while the node shuts down.", node.draining),
        "largest_batch": ("Messages in the largest transaction so far.", node.chat.counters.largest_batch),
    }


class NodeCollector(Collector):
    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        for name, (text, count) in _counters(self._node).items():
            yield CounterMetricFamily(f"kama_{name}", text, value=float(count))
        for name, (text, value) in _gauges(self._node).items():
            yield GaugeMetricFamily(f"kama_{name}", text, value=float(value))
        closed = CounterMetricFamily("kama_connections_closed", "Connections ended, by close code.", labels=["code"])
        for code, count in self._node.registry.closed_by_code.items():
            closed.add_metric([str(int(code))], count)
        yield closed


def metrics_registry(node: Node) -> CollectorRegistry:
    """A registry of the node's own: two nodes in one process do not meet in prometheus_client's global one."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
