"""Real servers for the tests: how each is got, started, found ready and ended.

Only the standard library: this may run before the virtual environment exists.
A service is listed in SERVICES with the variables that tell the tests, and a node, where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from servicelib import kafka_server, postgres_server, redis_server
from servicelib.records import Started

__all__ = ["SERVICES", "Service"]


@dataclass(frozen=True)
class Service:
    """One service that the tests can use."""

    variable: str  # its URL for the tests
    setting: str  # and for a node
    start: Callable[[Path, int], list[Started]]  # (folder of the services, number of servers)
    ready: Callable[[Started], bool]  # whether one server that was started again is back
    seconds: float  # the longest that may take
    counts: tuple[int, ...] = (1,)  # how many servers it can have


SERVICES = {
    "kafka": Service(
        "KAMA_TEST_KAFKA_BOOTSTRAP_SERVERS",
        "KAMA_KAFKA__BOOTSTRAP_SERVERS",
        kafka_server.start,
        kafka_server.ready,
        kafka_server.SECONDS,
        counts=(1, 3),
    ),
    "redis": Service(
        "KAMA_TEST_REDIS_URL", "KAMA_REDIS__URL", redis_server.start, redis_server.ready, redis_server.SECONDS
    ),
    "postgres": Service(
        "KAMA_TEST_POSTGRES_URL",
        "KAMA_STORE__URL",
        postgres_server.start,
        postgres_server.ready,
        postgres_server.SECONDS,
    ),
}
