"""How much of everything: for figures, or only enough to see that each part works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """`leases`: (users, nodes). `loads`: messages/s offered to real nodes, 0 for as fast as answers come."""

    leases: Sequence[tuple[int, int]] = ((10_000, 3), (100_000, 3), (100_000, 10), (100_000, 100), (1_000_000, 100))
    batches: Sequence[int] = (1, 50, 500)
    look_ups: int = 200
    announcements: Sequence[int] = (3, 10, 100, 300)
    beats: int = 100
    dead_leases: int = 10_000
    members: Sequence[int] = (2, 10, 100, 1_000, 10_000)
    spread: Sequence[int] = (1, 3, 10, 100)
    tells: int = 10
    forwards: int = 300
    inboxes: Sequence[int] = (10, 100)
    rows: Sequence[int] = (1, 10, 100, 500)
    cursors: Sequence[int] = (1, 10, 100, 1_000, 10_000)
    transactions: int = 20
    nodes: Sequence[int] = (1, 2, 3)
    loads: Sequence[int] = (25, 100, 0)
    pairs: int = 25
    seconds: float = 5.0
    simulated_seconds: float = 6.0


TINY = Sizes(
    leases=((20, 3),),
    batches=(1, 5),
    look_ups=3,
    announcements=(3,),
    beats=2,
    dead_leases=20,
    members=(2, 10),
    spread=(1, 3),
    tells=2,
    forwards=3,
    inboxes=(2,),
    rows=(1, 5),
    cursors=(1, 5),
    transactions=2,
    nodes=(1, 2),
    loads=(50,),
    pairs=2,
    seconds=1.0,
    simulated_seconds=0.2,
)
