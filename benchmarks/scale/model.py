"""Messages of pairs through a simulated cluster: each step takes what it was measured to take, of the part it is on.

Nodes, Kafka, PostgreSQL and Redis are servers with a queue; a node stores one batch at a time, in the same writer's
turn as its statuses, and a batch is what gathered meanwhile. Nothing fails, and every message is as large as the next.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.scale.costs import Costs
from benchmarks.scale.simulation import Lock, Process, Server, Signal, Simulation

BATCH = 500
# A ping, BEGIN, three or four statements, COMMIT.
ROUND_TRIPS = 6


@dataclass(frozen=True, slots=True)
class Setup:
    """`cores`: of PostgreSQL, and of Kafka. `shared_cores`: everything on one machine with so many instead.

    `at_once`: a node writes to the inboxes of all others at the same time rather than one after the other. `hot`: the
    share of messages that belong to one conversation. `across`: the two of a pair are never on the same node.
    `client_us`: what who sends and receives takes of the shared machine, a message; `others`: cores that are not ours.
    """

    nodes: int
    partitions: int = 12
    cores: int = 8
    shared_cores: int = 0
    at_once: bool = False
    hot: float = 0.0
    across: bool = False
    client_us: float = 0.0
    others: float = 0.0

    @property
    def storing(self) -> int:
        return min(self.nodes, self.partitions)

    def told(self, batch: float) -> float:
        """The other nodes that a batch of pairs has somebody on."""
        others = self.nodes - 1
        return others * (1 - (1 - 1 / self.nodes) ** (2 * batch)) if others else 0.0

    def elsewhere(self) -> float:
        """The other nodes that one message's two users are on."""
        n = self.nodes
        if n == 1:
            return 0.0
        together = 0.0 if self.across else 1 / n
        return 2 * (1 - 1 / n) - together * (1 - 1 / n)


@dataclass(slots=True)
class _Node:
    cpu: Server
    writer: Lock
    queue: list[_Sent] = field(default_factory=list)
    marks: int = 0
    arrived: Signal = field(default_factory=Signal)
    marked: Signal = field(default_factory=Signal)


@dataclass(frozen=True, slots=True)
class _Sent:
    at: float
    sender: int
    receiver: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Latencies in milliseconds from the sending to the receiver; `done` messages/s; `batch` messages a transaction;
    CPU microseconds a message of all nodes together."""

    done: float
    p50: float
    p99: float
    batch: float
    node_us: float


class Cluster:
    """One run of a setup at so many messages a second."""

    def __init__(self, costs: Costs, setup: Setup, rate: float, seed: int = 1) -> None:
        self._costs = costs
        self._setup = setup
        self._rate = rate
        self._random = random.Random(seed)
        self._simulation = simulation = Simulation()
        cores = setup.shared_cores
        machine = Server(simulation, cores, 1 - setup.others / cores) if cores else None
        self._machine = machine
        self._postgres, self._kafka, self._redis = (
            machine or Server(simulation, cores) for cores in (setup.cores, setup.cores, 1)
        )
        self._nodes = [_Node(machine or Server(simulation, 1), Lock(simulation)) for _ in range(setup.nodes)]
        self._latencies: list[tuple[float, float]] = []
        self._batches = self._stored = 0
        self._worked = 0.0

    def run(self, seconds: float) -> Outcome:
        """Its first quarter is not counted: queues are still filling."""
        self._simulation.start(self._users())
        for number, node in enumerate(self._nodes):
            self._simulation.start(self._storing(number, node))
            self._simulation.start(self._statuses(node))
        self._simulation.run(seconds)
        since = seconds / 4
        found = sorted(took for at, took in self._latencies if at >= since)
        if not found:
            return Outcome(0.0, float("inf"), float("inf"), 0.0, 0.0)
        p50, p99 = (found[int(len(found) * part)] * 1e3 for part in (0.5, 0.99))
        stored = max(1, self._stored)
        batch = self._stored / max(1, self._batches)
        return Outcome(len(found) / (seconds - since), p50, p99, batch, self._worked / stored * 1e6)

    def _work(self, node: _Node, seconds: float) -> float:
        self._worked += seconds
        return node.cpu.use(seconds)

    # --- the walk of a message

    def _users(self) -> Process:
        while True:
            yield self._random.expovariate(self._rate)
            sender = self._random.randrange(self._setup.nodes)
            receiver = self._random.randrange(self._setup.nodes)
            if self._setup.across and self._setup.nodes > 1:
                receiver = (sender + self._random.randrange(1, self._setup.nodes)) % self._setup.nodes
            self._simulation.start(self._accept(_Sent(self._simulation.now, sender, receiver)))

    def _accept(self, sent: _Sent) -> Process:
        if self._machine is not None:
            yield self._machine.use(self._setup.client_us / 1e6)
        yield self._work(self._nodes[sent.sender], self._costs.accept.seconds(1))
        yield self._kafka.use(self._costs.kafka.message / 1e6)
        yield self._costs.accepted_ms / 1e3
        is_hot = self._random.random() < self._setup.hot
        partition = 0 if is_hot else self._random.randrange(self._setup.partitions)
        node = self._nodes[partition % self._setup.nodes]
        node.queue.append(sent)
        self._simulation.fire(node.arrived)

    def _storing(self, number: int, node: _Node) -> Process:
        costs = self._costs
        while True:
            while not node.queue:
                yield node.arrived
            batch, node.queue = node.queue[:BATCH], node.queue[BATCH:]
            self._batches += 1
            self._stored += len(batch)
            yield self._kafka.use(costs.kafka.batch / 1e6)
            yield from self._transaction(
                node, costs.store.seconds(len(batch)), costs.postgres_store.seconds(len(batch))
            )
            here = [sent for sent in batch if number in (sent.sender, sent.receiver)]
            yield self._work(node, self._frames(here, number) * costs.deliver.seconds(1))
            self._shown(node, here, number)
            if self._setup.nodes > 1:
                yield from self._tell(number, node, batch)
            yield costs.offset_ms / 1e3

    def _tell(self, number: int, node: _Node, batch: Sequence[_Sent]) -> Process:
        costs = self._costs
        users = 2 * len(batch)
        yield self._work(node, costs.look_up.seconds(users))
        yield self._redis.use(costs.redis.seconds(users))
        boxes: dict[int, list[_Sent]] = {}
        for sent in batch:
            for other in {sent.sender, sent.receiver} - {number}:
                boxes.setdefault(other, []).append(sent)
        for other, box in boxes.items():
            yield self._work(node, costs.forward.seconds(len(box)))
            wait = self._kafka.use(costs.kafka_inbox / 1e6) + costs.produce_ms / 1e3
            self._simulation.start(self._received(other, box), wait)
            if not self._setup.at_once:
                yield wait

    def _received(self, number: int, box: Sequence[_Sent]) -> Process:
        node = self._nodes[number]
        work = self._costs.receive.seconds(len(box)) + self._frames(box, number) * self._costs.deliver.seconds(1)
        yield self._work(node, work)
        self._shown(node, box, number)

    @staticmethod
    def _frames(batch: Sequence[_Sent], number: int) -> int:
        """To the sender as well as to the receiver."""
        return sum((sent.sender == number) + (sent.receiver == number) for sent in batch)

    def _shown(self, node: _Node, batch: Sequence[_Sent], number: int) -> None:
        now = self._simulation.now
        self._latencies += [(now, now - sent.at) for sent in batch if sent.receiver == number]
        node.marks += self._frames(batch, number)
        if node.marks:
            self._simulation.fire(node.marked)

    def _statuses(self, node: _Node) -> Process:
        while True:
            while not node.marks:
                yield node.marked
            marks, node.marks = node.marks / 2, 0  # what a message costs is counted for both of its users
            status, base = self._costs.status, self._costs.postgres_status
            yield from self._transaction(node, status.seconds(marks), base.seconds(marks))

    def _transaction(self, node: _Node, seconds: float, postgres_seconds: float) -> Process:
        """Between two statements whatever else the node has to do comes first."""
        yield from node.writer.take()
        for _ in range(ROUND_TRIPS):
            yield self._work(node, seconds / ROUND_TRIPS)
            yield self._postgres.use(postgres_seconds / ROUND_TRIPS)
        yield self._costs.commit_ms / 1e3
        node.writer.release()


# --- without simulating --------------------------------------------------------------------------------


def node_us(costs: Costs, setup: Setup, batch: float) -> float:
    """CPU microseconds a message of all nodes together, with batches of that many messages."""
    told = setup.told(batch)
    away = setup.elsewhere()
    more = costs.look_up.batch / batch + 2 * costs.look_up.message if setup.nodes > 1 else 0.0
    more += (costs.forward.batch + costs.receive.batch) * told / batch
    more += away * (costs.forward.message + costs.receive.message)
    return costs.at_one_node(batch) + more


def ceilings(costs: Costs, setup: Setup, batch: float) -> dict[str, float]:
    """Messages/s at which each part is busy all the time, with batches of that many messages."""
    told = setup.told(batch)
    kafka = costs.kafka.message + (costs.kafka.batch + told * costs.kafka_inbox) / batch
    base = costs.postgres_store.message + costs.postgres_status.message
    base += (costs.postgres_store.batch + costs.postgres_status.batch) / batch
    redis = costs.redis.batch / batch + 2 * costs.redis.message
    return {
        "nodes' CPU": setup.nodes * 1e6 / node_us(costs, setup, batch),
        "storing loops": setup.storing * batch / _loop_seconds(costs, setup, batch),
        "PostgreSQL": setup.cores * 1e6 / base,
        "Kafka": setup.cores * 1e6 / kafka,
        "Redis": 1e6 / redis if setup.nodes > 1 else float("inf"),
    }


def _loop_seconds(costs: Costs, setup: Setup, batch: float) -> float:
    """From one batch to the next, on a node that does nothing else."""
    told = setup.told(batch)
    cpu = costs.store.batch + batch * costs.store.message
    waits = (
        (costs.commit_ms + costs.offset_ms) * 1e3 + costs.postgres_store.batch + batch * costs.postgres_store.message
    )
    if setup.nodes > 1:
        cpu += costs.look_up.batch + 2 * batch * costs.look_up.message
        waits += costs.redis.batch + 2 * batch * costs.redis.message
    cpu += told * costs.forward.batch + setup.elsewhere() * batch * costs.forward.message
    waits += (1 if setup.at_once and told else told) * costs.produce_ms * 1e3
    return (cpu + waits) / 1e6
