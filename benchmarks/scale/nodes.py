"""Real nodes over real services on this machine: what a message takes of each part, by the CPU time of its processes.

The nodes, the services and the load tool share the machine's cores, so rates say little here and CPU time a message
says most of it. It is taken in the middle of a load; what the same processes take when idle is subtracted.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from benchmarks.scale.places import Places, family_cpu_seconds, new_name
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.table import Table
from benchmarks.servers import KEEPER, KamaServer, ServerFailed, machine_cpu_seconds

_IDLE = 3.0
_WARM_UP = 2.0
_PATIENCE = 30.0
_PARTS = ("kafka", "redis", "postgres", "client")


class KafkaNode(KamaServer):
    """One of several nodes that share a topic, a Redis and a PostgreSQL."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        super().__init__("normal")
        self._settings = settings

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "KAMA_NODE__MODE": "kafka", **self._settings}

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def counted(self, name: str) -> float:
        """A counter of its metrics."""
        with _no_proxy().open(f"{self.url}/metrics", timeout=10) as answer:
            found = re.search(rf"^kama_{name}_total (\S+)$", answer.read().decode(), re.MULTILINE)
        if found is None:
            raise ServerFailed(f"expected kama_{name}_total in the metrics of {self.url}")
        return float(found[1])

    def known(self) -> set[str]:
        """The names of the nodes that it knows."""
        headers = {"Authorization": f"Bearer {KEEPER.issue('Uadmin', 3600, 'admin')}"}
        with _no_proxy().open(urllib.request.Request(f"{self.url}/admin/nodes", headers=headers), timeout=10) as answer:
            return {info["name"] for info in json.load(answer)["data"]}


@dataclass(frozen=True, slots=True)
class Measured:
    """`us`: CPU microseconds a message of each part, `node` being all nodes; `node_us`: of each node by itself.
    `others`: what the machine did besides, in cores. Latencies in milliseconds."""

    nodes: int
    load: int
    rate: float
    batch: float
    us: Mapping[str, float]
    node_us: Sequence[float]
    others: float
    accept_p50: float
    receive_p50: float
    receive_p99: float


def _no_proxy() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


async def run(places: Places, sizes: Sizes) -> tuple[list[Measured], Sequence[float]]:
    """Every number of nodes at every load; then the CPU us of a node that only stores, and of one that only talks."""
    found = []
    for nodes in sizes.nodes:
        for load in sizes.loads:
            async with _fresh(places) as settings:
                with _cluster(nodes, settings) as cluster:
                    found.append(_measure(places, cluster, cluster, load, sizes))
    async with _fresh(places) as settings:
        with _cluster(2, {**settings, "KAMA_KAFKA__PARTITIONS": "1"}) as cluster:
            storing = _who_stores(cluster)
            talking = next(node for node in cluster if node is not storing)
            apart = _measure(places, [storing, talking], [talking], sizes.loads[-1], sizes)
    return found, apart.node_us


def tables(found: Sequence[Measured], apart: Sequence[float]) -> list[Table]:
    costs = Table(
        "Messages of pairs over real nodes: CPU us a message, of all nodes together and of each service",
        ("nodes", "offered/s", "messages/s", "messages/batch", "nodes us", *(f"{part} us" for part in _PARTS),
         "others' cores", "accept p50 ms", "receive p50 ms", "receive p99 ms"),
    )  # fmt: skip
    for one in found:
        shares = [one.us[part] for part in ("node", *_PARTS)]
        latencies = (one.accept_p50, one.receive_p50, one.receive_p99)
        costs.add(one.nodes, one.load or "all", one.rate, one.batch, *shares, one.others, *latencies)
    roles = Table("The same with one node that stores and another that has the users", ("role", "node us"))
    for role, us in zip(("stores", "has the users"), apart, strict=True):
        roles.add(role, us)
    return [costs, roles]


@asynccontextmanager
async def _fresh(places: Places) -> AsyncIterator[dict[str, str]]:
    """Settings of nodes with a topic, a Redis database and a PostgreSQL database of their own."""
    async with places.empty_redis(), places.new_postgres() as url:
        yield {
            "KAMA_KAFKA__BOOTSTRAP_SERVERS": places.kafka,
            "KAMA_KAFKA__TOPIC": new_name("scale"),
            "KAMA_KAFKA__GROUP": new_name("scale"),
            "KAMA_REDIS__URL": places.redis,
            "KAMA_STORE__URL": url,
        }


@contextmanager
def _cluster(count: int, settings: Mapping[str, str]) -> Iterator[list[KafkaNode]]:
    """Nodes that know each other."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(KafkaNode(settings)) for _ in range(count)]
        names = {node.address for node in nodes}
        deadline = time.monotonic() + _PATIENCE
        while any(node.known() != names for node in nodes):
            if time.monotonic() > deadline:
                raise ServerFailed(f"expected {count} nodes that know each other within {_PATIENCE:g} s")
            time.sleep(0.1)
        yield nodes
        for node in nodes:
            node.stop()


def _who_stores(cluster: Sequence[KafkaNode]) -> KafkaNode:
    with _bench(cluster, 20, 1, 1.0) as bench:
        bench.communicate(timeout=60)
    return max(cluster, key=lambda node: node.counted("messages_stored"))


# --- a load --------------------------------------------------------------------------------------------


@contextmanager
def _bench(nodes: Sequence[KafkaNode], load: int, pairs: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """`kama bench` beside us, whose output is its JSON."""
    where = [word for node in nodes for word in ("-s", node.url)]
    pace = ["--rate", str(load)] if load else []
    how = ["--pairs", str(pairs), "--warmup", f"{_WARM_UP:g}s", "--duration", f"{seconds:g}s", "--json"]
    command = [sys.executable, "-m", "kama", "bench", *where, *pace, *how]
    process = subprocess.Popen(
        command, env=nodes[0].environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


class _Reading:
    def __init__(self, places: Places, cluster: Sequence[KafkaNode], client: int | None = None) -> None:
        self.wall = time.perf_counter()
        self.machine = machine_cpu_seconds()
        self.nodes = [node.cpu_seconds() for node in cluster]
        self.parts = places.cpu_seconds()
        self.parts["client"] = family_cpu_seconds(client) if client else 0.0
        self.messages = sum(node.counted("messages_stored") for node in cluster)
        self.batches = sum(node.counted("store_batches") for node in cluster)


def _measure(
    places: Places, cluster: Sequence[KafkaNode], entries: Sequence[KafkaNode], load: int, sizes: Sizes
) -> Measured:
    """The users are on `entries`. Raises ServerFailed."""
    idle = _between(_Reading(places, cluster), _IDLE, lambda: _Reading(places, cluster))
    with _bench(entries, load, sizes.pairs, sizes.seconds + 1.5) as bench:
        before = sum(node.counted("messages_stored") for node in cluster)
        deadline = time.monotonic() + _PATIENCE
        while sum(node.counted("messages_stored") for node in cluster) < before + sizes.pairs:
            if bench.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"the load did not begin: {bench.communicate()}")
            time.sleep(0.1)
        time.sleep(_WARM_UP)
        began = _Reading(places, cluster, bench.pid)
        busy = _between(began, sizes.seconds, lambda: _Reading(places, cluster, bench.pid))
        out, told = bench.communicate(timeout=90)
        if bench.returncode:
            raise ServerFailed(f"kama bench ended with {bench.returncode}: {told}")
    latency = json.loads(out)["latency_ms"]
    return replace(
        _per_message(load, idle, busy),
        accept_p50=latency["accept"]["p50"] or 0.0,
        receive_p50=latency["receive"]["p50"] or 0.0,
        receive_p99=latency["receive"]["p99"] or 0.0,
    )


_Span = tuple[_Reading, _Reading]


def _between(first: _Reading, seconds: float, read: Callable[[], _Reading]) -> _Span:
    time.sleep(seconds)
    return first, read()


def _per_message(load: int, idle: _Span, busy: _Span) -> Measured:
    (rest, rested), (began, ended) = idle, busy
    seconds = ended.wall - began.wall
    scale = seconds / (rested.wall - rest.wall)
    messages, batches = ended.messages - began.messages, ended.batches - began.batches
    if not messages:
        raise ServerFailed("expected messages to be stored while it was measured, got none")

    def us(before: float, after: float, idle_before: float, idle_after: float) -> float:
        return max(0.0, after - before - (idle_after - idle_before) * scale) / messages * 1e6

    nodes = list(map(us, began.nodes, ended.nodes, rest.nodes, rested.nodes))
    parts = {part: us(began.parts[part], ended.parts[part], rest.parts[part], rested.parts[part]) for part in _PARTS}
    ours = sum(ended.nodes) - sum(began.nodes) + sum(ended.parts.values()) - sum(began.parts.values())
    others = max(0.0, ended.machine - began.machine - ours) / seconds
    us_of_all = {"node": sum(nodes), **parts}
    size = messages / max(1.0, batches)
    return Measured(len(nodes), load, messages / seconds, size, us_of_all, nodes, others, 0.0, 0.0, 0.0)
