"""What the model says: first beside what was measured, then where nobody has measured."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.scale.costs import Costs, fitted
from benchmarks.scale.model import BATCH, Cluster, Outcome, Setup, ceilings
from benchmarks.scale.nodes import Measured
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.table import Table

_MACHINE = 2
_LARGE = (Setup(1), Setup(3), Setup(10, 30), Setup(30, 90, 16), Setup(100, 300, 32), Setup(100, 300, 32, at_once=True))
_SHARES = (0.25, 0.5, 0.75)
_PARTITIONS = (1, 3, 12, 36)
_HOT = (0.05, 0.2, 1.0)
_ONLINE = ((100_000, Setup(10, 30)), (1_000_000, Setup(100, 300, 32)))
_EVERY = (300, 60, 30)


def tables(costs: Costs, measured: Sequence[Measured], apart: Sequence[float], sizes: Sizes) -> list[Table]:
    costs = fitted(costs, measured, apart) if measured else costs
    against = [_against(costs, measured, sizes)] if measured else []
    seconds = sizes.simulated_seconds
    simulated = [_latencies(costs, seconds), _skew(costs, seconds), _online(costs, seconds)]
    return [*against, _used(costs), _ceilings(costs), *simulated]


def _used(costs: Costs) -> Table:
    table = Table("What the model is fed with", ("step", "us/batch", "us/message"))
    for name in ("accept", "store", "look_up", "forward", "receive", "deliver", "status"):
        table.add(name, getattr(costs, name).batch, getattr(costs, name).message)
    table.add("kafka_inbox", costs.kafka_inbox, 0.0)
    for name in ("postgres_store", "postgres_status", "kafka", "redis"):
        table.add(name, getattr(costs, name).batch, getattr(costs, name).message)
    return table


def _against(costs: Costs, measured: Sequence[Measured], sizes: Sizes) -> Table:
    """Only one node was used to fit the costs: what stands there is a fit, what stands below is predicted."""
    table = Table(
        f"Model and measurement, everything on the {_MACHINE} cores of one machine, at the measured rate",
        ("nodes", "messages/s", "batch measured", "batch model", "nodes us measured", "nodes us model",
         "p50 ms measured", "p50 ms model", "p99 ms measured", "p99 ms model"),
    )  # fmt: skip
    for one in measured:
        setup = Setup(
            one.nodes, shared_cores=_MACHINE, across=True, client_us=one.us["client"], others=min(one.others, 1.5)
        )
        says = Cluster(costs, setup, one.rate).run(max(4.0, sizes.simulated_seconds))
        pairs = ((one.batch, says.batch), (one.us["node"], says.node_us), (one.receive_p50, says.p50))
        found = [value for pair in (*pairs, (one.receive_p99, says.p99)) for value in pair]
        table.add(one.nodes, one.rate, *found)
    return table


def _ceilings(costs: Costs) -> Table:
    """With full batches: less than that, and each part is busy sooner."""
    table = Table(
        f"Messages/s at which a part is busy all the time, batches of 50 and of {BATCH}",
        ("nodes", "partitions", "cores each", "inboxes", "batch", "nodes' CPU", "storing loops", "PostgreSQL", "Kafka",
         "Redis", "first"),
    )  # fmt: skip
    for setup in _LARGE:
        for batch in (50, BATCH):
            found = ceilings(costs, setup, batch)
            first = min(found, key=lambda part: found[part])
            row = [int(value) if value < 1e9 else "-" for value in found.values()]
            table.add(setup.nodes, setup.partitions, setup.cores, _inboxes(setup), batch, *row, first)
    return table


def _inboxes(setup: Setup) -> str:
    return "at once" if setup.at_once else "in turn"


def _latencies(costs: Costs, seconds: float) -> Table:
    table = Table(
        "Simulated: messages of pairs on random nodes, at a part of what the nodes' CPU would do in batches of 50",
        ("nodes", "inboxes", "offered/s", "done/s", "batch", "p50 ms", "p99 ms"),
    )
    for setup in _LARGE:
        for share in _SHARES:
            rate = ceilings(costs, setup, 50)["nodes' CPU"] * share
            outcome = Cluster(costs, setup, rate).run(seconds)
            table.add(setup.nodes, _inboxes(setup), int(rate), *_shown(outcome))
    return table


def _shown(outcome: Outcome) -> Sequence[float]:
    return int(outcome.done), outcome.batch, outcome.p50, outcome.p99


def _skew(costs: Costs, seconds: float) -> Table:
    """Ten nodes at a third of what they could do: few partitions, then one conversation that is busier than others."""
    table = Table(
        "Simulated: ten nodes, few partitions, or a part of all messages in one conversation",
        ("partitions", "% in one conversation", "offered/s", "done/s", "batch", "p50 ms", "p99 ms"),
    )
    rate = ceilings(costs, Setup(10, 30), 50)["nodes' CPU"] / 3
    for partitions in _PARTITIONS:
        table.add(partitions, 0, int(rate), *_shown(Cluster(costs, Setup(10, partitions), rate).run(seconds)))
    for hot in _HOT:
        outcome = Cluster(costs, Setup(10, 30, hot=hot), rate).run(seconds)
        table.add(30, int(hot * 100), int(rate), *_shown(outcome))
    return table


def _online(costs: Costs, seconds: float) -> Table:
    table = Table(
        "Simulated: users online, each of whom writes one message to another in so many seconds",
        ("users", "nodes", "seconds", "offered/s", "done/s", "batch", "p50 ms", "p99 ms", "nodes us", "cores of nodes"),
    )
    for users, setup in _ONLINE:
        for every in _EVERY:
            outcome = Cluster(costs, setup, users / every).run(seconds)
            cores = outcome.done * outcome.node_us / 1e6
            table.add(users, setup.nodes, every, users // every, *_shown(outcome), outcome.node_us, cores)
    return table
