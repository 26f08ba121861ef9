"""Real servers for the tests: how each is got, started, found ready and ended.

Only the standard library: this may run before the virtual environment exists.
A service is one function `(folder) -> Started`, listed in SERVICES with the
variable that tells the tests where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from servicelib import redis_server
from servicelib.records import Started

__all__ = ["SERVICES", "Service"]


@dataclass(frozen=True)
class Service:
    """One server that the tests can use: the variable with its URL, and the function that starts it."""

    variable: str
    start: Callable[[Path], Started]


SERVICES = {"redis": Service(redis_server.VARIABLE, redis_server.start)}
