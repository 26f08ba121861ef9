"""What each step of a message costs, as measured; the model is fed with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.scale.nodes import Measured


@dataclass(frozen=True, slots=True)
class Step:
    """CPU microseconds of a batch, and of each message in it."""

    batch: float
    message: float

    def seconds(self, messages: float) -> float:
        return (self.batch + messages * self.message) / 1e6


@dataclass(frozen=True, slots=True)
class Costs:
    """`Step`s are CPU time, `_ms` are waits for what is not CPU here: the network, the disk, a poll.

    The defaults are those of docs/scale.md, and the tables there say where each of them comes from.
    """

    accept: Step = Step(0, 100)
    store: Step = Step(5100, 160)
    look_up: Step = Step(160, 30)  # a user is what counts, not a message
    forward: Step = Step(570, 6)
    receive: Step = Step(280, 15)
    deliver: Step = Step(0, 51)
    status: Step = Step(5100, 51)
    postgres_store: Step = Step(880, 140)
    postgres_status: Step = Step(880, 140)
    kafka: Step = Step(2250, 54)
    kafka_inbox: float = 600.0
    redis: Step = Step(30, 3)
    accepted_ms: float = 6.7  # the look for a retry, and Kafka's acknowledgement
    produce_ms: float = 0.8
    commit_ms: float = 1.0
    offset_ms: float = 1.4

    def at_one_node(self, batch: float) -> float:
        """CPU microseconds a message of a pair takes of a node that does everything for it."""
        each = self.accept.message + self.store.message + 2 * self.deliver.message + self.status.message
        return each + (self.store.batch + self.status.batch) / batch


def fitted(costs: Costs, measured: Sequence[Measured], apart: Sequence[float]) -> Costs:
    """`costs` with what one node, and two with their roles apart, have shown. Other numbers of nodes are not used.

    What a message takes falls with the size of its batch: a straight line over 1/batch gives both parts of it.
    """
    alone = [one for one in measured if one.nodes == 1]
    if len({round(1 / one.batch, 3) for one in alone}) < 2:
        return costs
    node_batch, node_message = _line([(1 / one.batch, one.us["node"]) for one in alone])
    base_batch, base_message = _line([(1 / one.batch, one.us["postgres"]) for one in alone])
    kafka_batch, kafka_message = _line([(1 / one.batch, one.us["kafka"]) for one in alone])
    storing, talking = apart
    share = min(0.8, max(0.2, storing / (storing + talking)))
    rest = node_message * (1 - share)
    return replace(
        costs,
        accept=Step(0, rest * 0.4),
        store=Step(node_batch / 2, node_message * share),
        deliver=Step(0, rest * 0.2),
        status=Step(node_batch / 2, rest * 0.2),
        postgres_store=Step(base_batch / 2, base_message / 2),
        postgres_status=Step(base_batch / 2, base_message / 2),
        kafka=Step(kafka_batch, kafka_message),
        accepted_ms=min(one.accept_p50 for one in alone),
    )


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and value at 0 of the straight line through the points, neither below 0. A point counts by how far the
    line misses it in percent: a hundred messages a batch cost a tenth of what one does, and are as well known."""
    weights = [1 / max(y, 1.0) ** 2 for _, y in points]
    total = sum(weights)
    mean_x = sum(weight * x for weight, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(weight * y for weight, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(weight * (x - mean_x) ** 2 for weight, (x, _) in zip(weights, points, strict=True))
    rise = sum(weight * (x - mean_x) * (y - mean_y) for weight, (x, y) in zip(weights, points, strict=True))
    slope = max(0.0, rise / spread)
    return slope, max(0.0, mean_y - slope * mean_x)
