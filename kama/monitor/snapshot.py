"""One look at a node: its snapshot document, as a store that everything else can read."""

from __future__ import annotations

from typing import Any

import msgspec

from kama import __version__
from kama.monitor.link import Incompatible, Link, LinkState, check_hello
from kama.monitor.store import MonitorStore
from kama.monitor_protocol import Events, Snapshot


def read_snapshot(data: Any) -> Snapshot:
    """The `data` of GET /monitor/snapshot. Raises Incompatible."""
    try:
        snapshot = msgspec.convert(data, Snapshot)
    except msgspec.ValidationError as error:
        raise Incompatible(f"expected a snapshot as kama {__version__} sends, got something else: {error}") from None
    check_hello(snapshot.hello)
    return snapshot


def take_snapshot(store: MonitorStore, source: str, snapshot: Snapshot, now_ms: int) -> None:
    """As if that source had sent it just now."""
    store.apply(source, Link(state=LinkState.LIVE, since_ms=now_ms), now_ms)
    store.apply(source, snapshot.hello, now_ms)
    store.apply(source, snapshot.snap, now_ms)
    store.apply(source, Events(seq=snapshot.snap.seq + 1, items=snapshot.events), now_ms)
