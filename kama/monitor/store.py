"""MonitorStore: what a monitor knows, put together from the frames of its sources.

It has no clock and does no I/O: who feeds it says what the time is. Everything in it is bounded. Frames that are
lost, doubled or out of order never break it: a source that missed one `needs_snap`, and is right again after it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto

from kama.monitor.chain import Place
from kama.monitor.frames import Frame, Left, Rewound
from kama.monitor.link import Link
from kama.monitor.messages import Messages
from kama.monitor.recent import Recent
from kama.monitor.series import COUNTERS, NO_RATES, Series
from kama.monitor.watched import NODES_MAX, Watched
from kama.monitor_protocol import FAILURES, Bye, Client, Closed, Delta, Event, Events, Hello, History, Node, Point, Snap

SOURCES_MAX = 100
EVENTS_MAX = 2_000
FAILURES_MAX = 1_000
CLOSED_MAX = 1_000


class Changes(Flag):
    """What a frame changed."""

    NONE = 0
    NODES = auto()
    CLIENTS = auto()
    CLOSED = auto()
    EVENTS = auto()
    MESSAGES = auto()
    HISTORY = auto()
    LINK = auto()
    RESULT = auto()


@dataclass(frozen=True, slots=True)
class Totals:
    """Of all nodes that are not gone. `rates` per second and `counters` by the names in Counters."""

    nodes: int
    connections: int
    users: int
    counters: Mapping[str, int]
    rates: Mapping[str, float]


class MonitorStore:
    """`apply` frames to it, then read what they add up to."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.sources: dict[str, Watched] = {}
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)  # oldest first; likewise the next
        self.failures: deque[Event] = deque(maxlen=FAILURES_MAX)
        self.messages = Messages()
        self._recent = Recent()
        self._closed: OrderedDict[str, Closed] = OrderedDict()
        self._series: dict[str, Series] = {}
        self._nodes: dict[str, Node] | None = None
        self._clients: dict[str, Client] | None = None

    # --- what comes

    def apply(self, source: str, frame: Frame, now_ms: int) -> Changes:
        """Take a frame of that source, which came at `now_ms` (Unix ms). What it changed."""
        if isinstance(frame, Rewound):
            self._clear()
            return ~Changes.NONE
        if isinstance(frame, Left):
            self.sources.pop(source, None)
            return self._changed(Changes.NODES | Changes.CLIENTS | Changes.LINK)
        watched = self.sources.get(source)
        if watched is None:
            if len(self.sources) >= SOURCES_MAX:
                return Changes.NONE
            watched = self.sources[source] = Watched(source)
        if isinstance(frame, Link):
            watched.link = frame
            return self._changed(Changes.NODES | Changes.LINK)
        watched.frame_ms = max(watched.frame_ms, now_ms)
        return self._take(watched, frame, now_ms)

    def _take(self, watched: Watched, frame: Frame, now_ms: int) -> Changes:
        match frame:
            case Hello():
                watched.greet(frame, now_ms)
                return self._changed(Changes.NODES | Changes.CLIENTS | Changes.LINK)
            case History():
                if watched.node:
                    self._series_of(watched.node).take_history(frame.points)
                return Changes.HISTORY
            case Snap() | Delta():
                return self._take_state(watched, frame)
            case Events():
                return self._take_events(watched, frame)
            case Bye():
                return Changes.LINK
            case _:
                return Changes.RESULT

    def _take_state(self, watched: Watched, frame: Snap | Delta) -> Changes:
        if watched.chain.take(frame) is not Place.NEXT:
            return Changes.LINK if watched.needs_snap else Changes.NONE
        if isinstance(frame, Snap):
            watched.take_snap(frame)
        else:
            watched.take_delta(frame)
        changes = self._changed(Changes.NODES | Changes.CLIENTS)
        if self._take_closed(frame.closed):
            changes |= Changes.CLOSED
        if self._take_points(watched, frame.nodes):
            changes |= Changes.HISTORY
        return changes

    def _take_closed(self, closed: Iterable[Closed]) -> bool:
        before = len(self._closed), next(reversed(self._closed), None)
        for one in closed:
            if one.id not in self._closed:
                self._closed[one.id] = one
        while len(self._closed) > CLOSED_MAX:
            self._closed.popitem(last=False)
        return before != (len(self._closed), next(reversed(self._closed), None))

    def _take_points(self, watched: Watched, told: Iterable[Node]) -> bool:
        """The source's own node is as it was at the frame's time, changed or not; others are as they last said."""
        is_new = False
        if self.owner_of(watched.node) is watched:
            is_new = self._series_of(watched.node).take(watched.nodes[watched.node], watched.chain.at_ms)
        for node in told:
            if node.beat_ms and node.state != "gone" and self.owner_of(node.name) is None:
                is_new |= self._series_of(node.name).take(node, node.beat_ms)
        return is_new

    def _take_events(self, watched: Watched, frame: Events) -> Changes:
        if watched.chain.take(frame) is Place.AGAIN:
            return Changes.NONE
        watched.sampled_out += frame.sampled_out
        watched.lost += frame.lost
        changes = Changes.EVENTS
        if self.owner_of(watched.node) not in (watched, None):
            return changes  # two sources lead to one node, and the other one tells of it
        events = self._recent.unseen(frame.items) if watched.is_new else frame.items
        watched.is_new = False
        self._recent.note(events)
        for event in events:
            self.events.append(event)
            if event.kind in FAILURES:
                self.failures.append(event)
            if self.messages.take(event):
                changes |= Changes.MESSAGES
        return changes

    def _changed(self, changes: Changes) -> Changes:
        if changes & (Changes.NODES | Changes.LINK):
            self._nodes = None
        if changes & Changes.CLIENTS:
            self._clients = None
        return changes

    def _series_of(self, name: str) -> Series:
        series = self._series.get(name)
        if series is None:
            if len(self._series) >= NODES_MAX:
                self._series.pop(next((old for old in self._series if old not in self.nodes), next(iter(self._series))))
            series = self._series[name] = Series()
        return series

    # --- what is known

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Nodes by name. What a node says of itself goes before what others say of it, while it is of now; else what
        has the later beat."""
        if self._nodes is None:
            merged: dict[str, Node] = {}
            for watched in self.sources.values():
                for name, node in watched.nodes.items():
                    if name not in merged or node.beat_ms > merged[name].beat_ms:
                        merged[name] = node
            for watched in self.sources.values():
                if self._speaks_for_itself(watched):
                    merged[watched.node] = watched.nodes[watched.node]
            self._nodes = merged
        return self._nodes

    @property
    def clients(self) -> Mapping[str, Client]:
        """The connections that the sources show, by their ids."""
        if self._clients is None:
            self._clients = {id: client for watched in self.sources.values() for id, client in watched.clients.items()}
        return self._clients

    @property
    def closed(self) -> list[Closed]:
        """Connections that ended, the last one first."""
        return sorted(self._closed.values(), key=lambda closed: closed.until_ms, reverse=True)

    @property
    def matched(self) -> int:
        """How many connections pass the filter, on the watched nodes together; likewise `total`: how many there are."""
        return sum(watched.matched for watched in self.sources.values())

    @property
    def total(self) -> int:
        return sum(watched.total for watched in self.sources.values())

    def owner_of(self, node: str) -> Watched | None:
        """The source that leads to that node, if what it says is of now."""
        for watched in self.sources.values():
            if watched.node == node and self._speaks_for_itself(watched):
                return watched
        return None

    def _speaks_for_itself(self, watched: Watched) -> bool:
        return watched.is_current and watched.node in watched.nodes

    def age_ms(self, source: str, now_ms: int) -> int | None:
        """How old the last frame of that source is; none came: None."""
        watched = self.sources.get(source)
        return max(0, now_ms - watched.frame_ms) if watched is not None and watched.frame_ms else None

    def needs_snap(self, source: str) -> bool:
        watched = self.sources.get(source)
        return watched is not None and watched.needs_snap

    def points(self, node: str) -> list[Point]:
        """The node's last minutes, oldest first, a point a second."""
        series = self._series.get(node)
        return list(series.points) if series is not None else []

    def rates(self, node: str) -> Mapping[str, float]:
        """How fast each counter of the node rises, per second, between its last two frames; not seen now: zeros."""
        series = self._series.get(node)
        return series.rates if series is not None and self.is_seen(node) else NO_RATES

    def mean_rates(self, node: str) -> Mapping[str, float]:
        """The same over the last seconds, for what rises in batches."""
        series = self._series.get(node)
        return series.mean_rates if series is not None and self.is_seen(node) else NO_RATES

    def is_seen(self, node: str) -> bool:
        """Whether a source that is of now tells of that node."""
        return any(watched.is_current and node in watched.nodes for watched in self.sources.values())

    def totals(self) -> Totals:
        nodes = [node for node in self.nodes.values() if node.state != "gone"]
        rates = [self.rates(node.name) for node in nodes]
        return Totals(
            nodes=len(nodes),
            connections=sum(node.connections for node in nodes),
            users=sum(node.users for node in nodes),
            counters={name: sum(getattr(node.counters, name) for node in nodes) for name in COUNTERS},
            rates={name: sum(each[name] for each in rates) for name in COUNTERS},
        )
