"""SimulatedNode: a node's side of the monitor without a node: a truth that changes, and the frames that tell it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from kama.monitor.link import Link, LinkState
from kama.monitor.store import Changes, MonitorStore
from kama.monitor_protocol import (
    Client,
    Closed,
    Counters,
    Delta,
    Event,
    Events,
    Hello,
    Node,
    NodeFrame,
    Snap,
)

START_MS = 1_795_530_000_000


class SimulatedNode:
    """Its clock goes on by `interval_ms` with each frame of state."""

    def __init__(self, name: str = "n1", *, epoch: str = "e1", interval_ms: int = 250, now_ms: int = START_MS) -> None:
        self.name = name
        self.interval_ms = interval_ms
        self.now_ms = now_ms
        self.node = Node(name=name, epoch=epoch, version="1", started_ms=now_ms, beat_ms=now_ms)
        self.others: dict[str, Node] = {}
        self.clients: dict[str, Client] = {}
        self.closed: list[Closed] = []
        self._seq = 0
        self._base = 0
        self._told: tuple[dict[str, Node], dict[str, Client], int] = ({}, {}, 0)

    # --- the truth

    def change(self, **fields: Any) -> None:
        self.node = replace(self.node, **fields)

    def count(self, **counters: int) -> None:
        """Counters rise by that much."""
        now = {name: getattr(self.node.counters, name) + more for name, more in counters.items()}
        self.change(counters=replace(self.node.counters, **now))

    def connect(self, id: str, user_id: str = "U1", **fields: Any) -> None:
        self.clients[id] = Client(id=id, user_id=user_id, node=self.name, **fields)

    def disconnect(self, id: str) -> None:
        client = self.clients.pop(id)
        self.closed.append(
            Closed(id=id, user_id=client.user_id, node=self.name, until_ms=self.now_ms, code=1000, reason="bye")
        )

    def restart(self, epoch: str) -> None:
        self.node = replace(self.node, epoch=epoch, counters=Counters(), started_ms=self.now_ms)
        self.clients.clear()
        self._seq = self._base = 0

    # --- its frames

    def hello(self) -> Hello:
        self._seq = self._base = 0
        return Hello(
            protocol=1,
            node=self.name,
            epoch=self.node.epoch,
            mode=self.node.mode,
            version=self.node.version,
            started_ms=self.node.started_ms,
            now_ms=self.now_ms,
            role="admin",
            user_id="U1",
            expires_ms=0,
        )

    def snap(self) -> Snap:
        nodes, clients = self._next()
        return Snap(
            seq=self._seq,
            at_ms=self.now_ms,
            interval_ms=self.interval_ms,
            nodes=list(nodes.values()),
            clients=list(clients.values()),
            matched=len(clients),
            total=len(clients),
            closed=self.closed[-10:],
        )

    def delta(self) -> Delta:
        old_nodes, old_clients, old_closed = self._told
        base = self._base
        nodes, clients = self._next()
        return Delta(
            seq=self._seq,
            base=base,
            at_ms=self.now_ms,
            interval_ms=self.interval_ms,
            nodes=[node for name, node in nodes.items() if old_nodes.get(name) != node],
            clients=[client for id, client in clients.items() if old_clients.get(id) != client],
            gone=[id for id in old_clients if id not in clients],
            matched=len(clients),
            total=len(clients),
            closed=self.closed[old_closed:],
        )

    def events(self, *items: Event, **fields: int) -> Events:
        self._seq += 1
        return Events(seq=self._seq, items=list(items), **fields)

    def _next(self) -> tuple[dict[str, Node], dict[str, Client]]:
        self._seq += 1
        self._base = self._seq
        self.now_ms += self.interval_ms
        self.node = replace(self.node, beat_ms=self.now_ms, connections=len(self.clients))
        nodes = {self.name: self.node, **self.others}
        self._told = (nodes, dict(self.clients), len(self.closed))
        return nodes, dict(self.clients)


LIVE = Link(state=LinkState.LIVE, since_ms=START_MS)


def feed(store: MonitorStore, node: SimulatedNode, frames: Iterable[NodeFrame], source: str = "") -> Changes:
    """Frames of that node, come at its own time. What they changed together."""
    changes = Changes.NONE
    for frame in frames:
        changes |= store.apply(source or f"http://{node.name}", frame, node.now_ms)
    return changes


def watched(*nodes: SimulatedNode) -> MonitorStore:
    """A store that watches these nodes, as they are now."""
    store = MonitorStore()
    for node in nodes:
        store.apply(f"http://{node.name}", LIVE, node.now_ms)
        feed(store, node, [node.hello(), node.snap()])
    return store
