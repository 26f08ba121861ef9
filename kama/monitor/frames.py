"""What comes from a source: the node's own frames, and what happens to the source itself."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from kama.monitor.link import Link
from kama.monitor_protocol import NodeFrame


class Left(Struct, frozen=True, tag="left"):
    """This source is watched no more."""


class Rewound(Struct, frozen=True, tag="rewound"):
    """A replay went to another place: what was known before it holds no more, of any source."""


Frame = NodeFrame | Link | Left | Rewound


class Item(NamedTuple):
    """A frame of a source, and when it came: Unix ms by the clock of who watched."""

    source: str
    frame: Frame
    at_ms: int
