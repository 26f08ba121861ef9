"""Frames: what one watcher was shown, and the frame that brings it to what is now. Nothing is kept but the last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kama.monitor_protocol import Client, Closed, Delta, Events, Node, Snap, Sub
from kama.server.registry import ClosedConn
from kama.server.watch.client_view import ClientView
from kama.server.watch.event_feed import EventFeed

if TYPE_CHECKING:
    from kama.server.app import Node as Parts

_CLOSED = 100


class Frames:
    """`seq` is that of the frame made last. `end` when the watcher has gone."""

    def __init__(self, parts: Parts, sub: Sub) -> None:
        self._parts = parts
        self._highs = parts.view.add_highs()
        self._base = 0
        self._nodes: dict[str, Node] = {}
        self._clients: dict[str, Client] = {}
        self._ended = 0
        self._feed: EventFeed | None = None
        self.seq = 0
        self.want(sub)

    def want(self, sub: Sub) -> None:
        """Show something else, from a snap on. Raises BadParameter, and then changes nothing."""
        parts = self._parts
        view = ClientView(parts.registry, parts.name, sub.clients)
        feed: EventFeed | None = None
        if sub.events is not None:
            at = None if self._feed is None else self._feed.at
            feed = EventFeed(parts.journal, parts.name, sub.events, at)
        self._view, self._feed = view, feed

    def end(self) -> None:
        self._parts.view.remove_highs(self._highs)

    async def snap(self, interval_ms: int) -> Snap:
        view = self._view
        rows = await view.rows()
        nodes = self._parts.view.nodes(self._highs)
        self._nodes = {node.name: node for node in nodes}
        self._clients = {client.id: client for client in rows}
        self._ended = max(0, self._parts.registry.ended - _CLOSED)
        self.seq += 1
        self._base = self.seq
        return Snap(
            seq=self.seq,
            at_ms=_now_ms(),
            interval_ms=interval_ms,
            nodes=nodes,
            clients=rows,
            matched=view.matched,
            total=len(self._parts.registry),
            closed=self._closed(),
        )

    async def delta(self, interval_ms: int) -> Delta:
        view = self._view  # another one may be wanted while this one is made
        rows = await view.rows()
        nodes = self._parts.view.nodes(self._highs)
        before, self._nodes = self._nodes, {node.name: node for node in nodes}
        shown, self._clients = self._clients, {client.id: client for client in rows}
        self.seq += 1
        base, self._base = self._base, self.seq
        return Delta(
            seq=self.seq,
            base=base,
            at_ms=_now_ms(),
            interval_ms=interval_ms,
            nodes=[node for node in nodes if node != before.get(node.name)],
            clients=[client for client in rows if client != shown.get(client.id)],
            gone=[id for id in shown if id not in self._clients],
            matched=view.matched,
            total=len(self._parts.registry),
            closed=self._closed(),
        )

    async def events(self) -> Events | None:
        """None when there are none to show."""
        if self._feed is None:
            return None
        taken = await self._feed.take()
        if not (taken.items or taken.sampled_out or taken.lost):
            return None
        self.seq += 1
        return Events(seq=self.seq, items=taken.items, sampled_out=taken.sampled_out, lost=taken.lost)

    def _closed(self) -> list[Closed]:
        """Those that ended since the frame before, the last hundred of them at most."""
        registry = self._parts.registry
        new = min(registry.ended - self._ended, _CLOSED, len(registry.closed))
        self._ended = registry.ended
        kept: Sequence[ClosedConn] = list(registry.closed)[-new:] if new else ()
        return [build_closed(conn, self._parts.name) for conn in kept]


def build_closed(conn: ClosedConn, node: str) -> Closed:
    return Closed(
        id=conn.id,
        user_id=conn.user_id,
        node=node,
        device=conn.device,
        address=conn.address,
        since_ms=int(conn.since * 1000),
        until_ms=int(conn.until * 1000),
        code=conn.code,
        reason=conn.reason,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
