"""Watched: what one source has said, as it said it."""

from __future__ import annotations

from dataclasses import dataclass, field

from kama.monitor.chain import Chain
from kama.monitor.link import Link
from kama.monitor_protocol import ROWS_MAX, Client, Delta, Hello, Node, Snap

NODES_MAX = 500


@dataclass(slots=True)
class Watched:
    """`frame_ms`: when its last frame came, by the clock of who watches; 0: none yet. `skew_ms`: how much the node's
    clock is ahead of that one. `matched` of `total` connections of its node pass the filter."""

    name: str
    link: Link = field(default_factory=Link)
    hello: Hello | None = None
    chain: Chain = field(default_factory=Chain)
    frame_ms: int = 0
    skew_ms: int = 0
    nodes: dict[str, Node] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    matched: int = 0
    total: int = 0
    sampled_out: int = 0
    lost: int = 0
    is_new: bool = True  # its connection has brought no events yet

    @property
    def node(self) -> str:
        """The name of the node at the other end; empty before its hello."""
        return self.hello.node if self.hello else ""

    @property
    def is_current(self) -> bool:
        return self.link.is_current and self.chain.at_ms > 0

    @property
    def needs_snap(self) -> bool:
        """A frame was missed: until the next snap what is known here is older than its frames say."""
        return self.hello is not None and self.chain.is_broken

    def greet(self, hello: Hello, now_ms: int) -> None:
        """A new connection. What was known stays until its snap; of another life of the node nothing does."""
        if self.hello is not None and self.hello.epoch != hello.epoch:
            self.clients.clear()
        self.hello = hello
        self.chain = Chain()
        self.is_new = True
        self.skew_ms = hello.now_ms - now_ms

    def take_snap(self, snap: Snap) -> None:
        self.nodes = {node.name: node for node in snap.nodes[:NODES_MAX]}
        self.clients = {client.id: client for client in snap.clients[:ROWS_MAX]}
        self.matched, self.total = snap.matched, snap.total

    def take_delta(self, delta: Delta) -> None:
        for id in delta.gone:
            self.clients.pop(id, None)
        for client in delta.clients:
            if client.id in self.clients or len(self.clients) < ROWS_MAX:
                self.clients[client.id] = client
        for node in delta.nodes:
            if node.name in self.nodes or len(self.nodes) < NODES_MAX:
                self.nodes[node.name] = node
        self.matched, self.total = delta.matched, delta.total
