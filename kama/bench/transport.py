"""What a run goes by: the fastest client and event loop that are installed. The node is to be measured, not them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from kama.client import NodeClient


@functools.cache
def fastest_client() -> type[NodeClient]:
    """By picows where it is installed, else by websockets."""
    try:
        from kama.bench.picows_client import PicowsClient
    except ImportError:
        return NodeClient
    return PicowsClient


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed, else asyncio's: None."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return None
    return new_event_loop


def loop_name() -> str:
    """Of the loop that runs, or would run."""
    try:
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]
    except RuntimeError:
        return "asyncio" if loop_factory() is None else "uvloop"
