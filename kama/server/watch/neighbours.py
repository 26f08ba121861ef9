"""Neighbours: what the other nodes last said of themselves, those included that say nothing any more.

A node that ended is shown as gone for ten minutes, with its last numbers, however it ended: the last thing that one
with a clean end says is that it drains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from kama.monitor_protocol import Node

# A node speaks every three seconds.
_SILENT = 10.0
_FORGOTTEN = 600.0


@dataclass(slots=True)
class _Sighting:
    node: Node
    at: float


class Neighbours:
    """`clock` in seconds. When a node spoke is told by this node's clock: another's may be wrong."""

    def __init__(self, own: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = own
        self._clock = clock
        self._seen: dict[str, _Sighting] = {}

    def see(self, nodes: Iterable[Node], *, deaf: bool = False) -> None:
        """What they said last. `deaf`: nobody can be heard now, so silence means nothing."""
        now = self._clock()
        for node in nodes:
            if node.name == self._own:
                continue
            known = self._seen.get(node.name)
            if known is None or (known.node.epoch, known.node.beat_ms) != (node.epoch, node.beat_ms):
                self._seen[node.name] = _Sighting(node, now)
        for name, known in list(self._seen.items()):
            if known.node.state != "gone":
                if deaf:
                    known.at = now
                elif now - known.at > _SILENT:
                    known.node = replace(known.node, state="gone")
            elif now - known.at > _FORGOTTEN:
                del self._seen[name]

    @property
    def nodes(self) -> Sequence[Node]:
        return [self._seen[name].node for name in sorted(self._seen)]
