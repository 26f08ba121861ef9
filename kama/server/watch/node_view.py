"""NodeView: what this node shows of itself, and what it last heard of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kama import __version__
from kama.monitor_protocol import ACTIONS, MONITOR_PROTOCOL, Counters, Hello, Node, Queue
from kama.server.auth import Identity
from kama.server.cache import CACHE_TASKS
from kama.server.store.logged import UNFOLDED_MAX
from kama.server.traffic import HighMark
from kama.server.vitals import Reading, Vitals
from kama.server.watch.client_view import unix_ms
from kama.server.watch.neighbours import Neighbours

if TYPE_CHECKING:
    from kama.server.app import Node as Parts


class Highs:
    """The marks of one watcher: the most since it looked last, whoever else looks meanwhile."""

    def __init__(self) -> None:
        self._high: dict[str, int] = {}

    def see(self, highs: Mapping[str, int]) -> None:
        for name, high in highs.items():
            self._high[name] = max(high, self._high.get(name, 0))

    def take(self) -> Mapping[str, int]:
        taken, self._high = self._high, {}
        return taken


class NodeView:
    """`tick` once a second: it notes as alerts what fails now, or works again."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started_ms = time.time_ns() // 1_000_000
        self._neighbours = Neighbours(parts.name)
        self._highs: set[Highs] = set()
        self._troubles: Mapping[str, str] = {}
        self._beat = Highs()
        self._highs.add(self._beat)
        self.vitals = Vitals(self._read, parts.journal.traffic, self.tick)

    def _read(self) -> Reading:
        parts = self._parts
        traffic, counters = parts.journal.traffic, parts.chat.counters
        return Reading(
            accepted=counters.accepted,
            stored=counters.stored,
            written=traffic.written,
            dropped=traffic.dropped,
            connections=len(parts.registry),
            transmit=parts.chat.waiting,
            send_back=traffic.queued,
            status=parts.status.depth,
        )

    def tick(self) -> None:
        directory = self._parts.directory
        self._neighbours.see([info.node for info in directory.nodes if info.node], deaf=bool(directory.trouble))
        now, before = self._find_troubles(), self._troubles
        self._troubles = now
        for name in sorted(now.keys() | before.keys()):
            if name not in before:
                self._parts.journal.alert(f"{name}: {now[name]}")
            elif name not in now:
                self._parts.journal.alert(f"{name}: works again")

    def _find_troubles(self) -> dict[str, str]:
        parts = self._parts
        found = {
            "store": "failing: messages are not being stored" if parts.chat.store_failing else "",
            "consumer": "" if parts.chat.is_consuming or parts.draining else "ended: nothing is stored any more",
            "cache": "" if parts.cache.available else "degraded: history comes from the store",
            "broker": parts.broker.trouble,
            "log": parts.log.trouble if parts.log is not None else "",
            "redis": parts.directory.trouble,
            "node": "draining" if parts.draining else "",
        }
        return {name: words for name, words in found.items() if words}

    # --- marks of those who look

    def add_highs(self) -> Highs:
        highs = Highs()
        self._highs.add(highs)
        return highs

    def remove_highs(self, highs: Highs) -> None:
        self._highs.discard(highs)

    def _fold_highs(self) -> None:
        taken = {name: mark.take(depth()) for name, (mark, depth, _) in self._queues().items()}
        for highs in self._highs:
            highs.see(taken)

    def _queues(self) -> Mapping[str, tuple[HighMark, Callable[[], int], int]]:
        parts = self._parts
        traffic = parts.journal.traffic
        queues: dict[str, tuple[HighMark, Callable[[], int], int]] = {
            "transmit": (parts.chat.mark, lambda: parts.chat.waiting, parts.settings.limits.channel_size),
            "send_back": (traffic.queued_mark, lambda: traffic.queued, 0),
            "status": (parts.status.mark, lambda: parts.status.depth, 0),
            "cache": (parts.cache.mark, lambda: parts.cache.depth, CACHE_TASKS),
        }
        if parts.log is not None:
            log = parts.log
            queues["log"] = (log.mark, lambda: log.unfolded, UNFOLDED_MAX)
        if parts.retries is not None:
            retries = parts.retries
            queues["retries"] = (retries.mark, lambda: retries.depth, 0)
            queues["peers"] = (parts.peers.mark, lambda: parts.peers.depth, 0)
        return queues

    # --- what is shown

    def nodes(self, highs: Highs) -> list[Node]:
        """This node now, and all others as they last were."""
        return [self.node(highs), *self._neighbours.nodes]

    def announced(self) -> Node:
        """This node for the others, with the most that waited since it told them last."""
        return self.node(self._beat)

    def node(self, highs: Highs) -> Node:
        parts, vitals = self._parts, self.vitals
        self._fold_highs()
        most = highs.take()
        return Node(
            name=parts.name,
            epoch=parts.directory.epoch,
            address=parts.name,
            version=__version__,
            mode=parts.settings.node.mode,
            state="draining" if parts.draining else "up",
            started_ms=self._started_ms,
            beat_ms=vitals.beat_ms,
            connections=len(parts.registry),
            users=parts.registry.users,
            counters=self._counters(),
            queues={
                name: Queue(depth=depth(), high=max(depth(), most.get(name, 0)), capacity=capacity)
                for name, (_, depth, capacity) in self._queues().items()
            },
            largest_batch=parts.chat.counters.largest_batch,
            batch_ms=parts.chat.counters.batch_ms,
            status_ms=round(parts.status.commit_ms, 2),
            sent_p50_ms=vitals.sent_p50_ms,
            sent_p99_ms=vitals.sent_p99_ms,
            loop_lag_ms=round(vitals.loop_lag_ms, 2),
            cpu_percent=vitals.cpu_percent,
            rss_bytes=vitals.rss_bytes,
            troubles=self._find_troubles(),
            partitions=list(parts.broker.partitions),
            rebalances=parts.broker.rebalances,
        )

    def _counters(self) -> Counters:
        parts = self._parts
        chat, traffic, cache = parts.chat.counters, parts.journal.traffic, parts.cache
        return Counters(
            accepted=chat.accepted,
            stored=chat.stored,
            duplicates=chat.duplicates,
            not_stored=chat.not_stored,
            offered=parts.delivery.offered,
            received=traffic.received,
            written=traffic.written,
            written_bytes=traffic.written_bytes,
            sent=traffic.sent,
            delivered=traffic.delivered,
            read=traffic.read,
            dropped=traffic.dropped,
            refused=parts.sessions.refused_frames,
            rate_limited=chat.rate_limited,
            signals=chat.ephemeral,
            signals_dropped=parts.delivery.ephemeral_dropped,
            store_failures=chat.store_failures,
            folded=parts.log.folded if parts.log is not None else 0,
            batches=chat.batches,
            logins=traffic.logins,
            logins_refused=traffic.logins_refused,
            closed=parts.registry.ended,
            forwarded=parts.peers.forwarded,
            inbox=parts.peers.received,
            poisoned=parts.broker.poisoned,
            cache_hits=cache.hits,
            cache_misses=cache.misses,
            cache_dropped=cache.dropped,
        )

    def hello(self, identity: Identity) -> Hello:
        parts = self._parts
        return Hello(
            protocol=MONITOR_PROTOCOL,
            node=parts.name,
            epoch=parts.directory.epoch,
            mode=parts.settings.node.mode,
            version=__version__,
            started_ms=self._started_ms,
            now_ms=time.time_ns() // 1_000_000,
            role=identity.role,
            user_id=identity.user_id,
            expires_ms=unix_ms(identity.expires_at),
            actions=list(ACTIONS) if identity.role == "admin" else [],
        )
