"""Findings: what is wrong in a store at one moment, by one rule each. Who judges over time is in `rules`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from kama.monitor.link import LinkState
from kama.monitor.store import MonitorStore
from kama.monitor.watched import Watched
from kama.monitor_protocol import Client, Node, Point

FULL_SHARE = 0.8
LOOP_LAG_MS = 100.0
STATUS_MS = 1_000.0
REFUSALS_PER_SECOND = 5.0
_RISING_POINTS = 6
_RISING_LEAST = 20
_NAMED = 3


class Level(IntEnum):
    OK = 0
    DEGRADED = 1
    DOWN = 2


Screen = Literal["overview", "clients", "messages", "queues", "nodes", "log"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`key` is the same as long as it is the same trouble. It counts once it has held for `hold_ms`.

    `screen` shows more, `subject` is what to look for there: a node, a user, a source; empty: nothing in particular.
    """

    key: str
    text: str
    level: Level = Level.DEGRADED
    screen: Screen = "overview"
    subject: str = ""
    hold_ms: int = 0


Rule = Callable[[MonitorStore, int], Iterator[Finding]]


# --- links ---------------------------------------------------------------------------------------------


def broken_links(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    """No source is of now: nobody knows how it is, and that is the worst there is."""
    sources = list(store.sources.values())
    broken = [watched for watched in sources if not watched.is_current]
    level = Level.DOWN if len(broken) == len(sources) else Level.DEGRADED
    for watched in broken:
        yield Finding(f"link {watched.name}", _link_text(watched), level, "nodes", watched.node or watched.name)


def _link_text(watched: Watched) -> str:
    link, name = watched.link, watched.node or watched.name
    if link.is_current or link.state is LinkState.CONNECTING:
        return f"no data yet from {name}"
    return f"{name} is not seen: {link.state}{f', {link.cause}' if link.cause else ''}"


def slow_links(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    for watched in store.sources.values():
        if watched.link.state is LinkState.SLOW:
            text = f"slow link to {watched.node or watched.name}: {watched.link.cause}"
            yield Finding(f"slow {watched.name}", text, screen="nodes", subject=watched.node, hold_ms=3_000)


# --- nodes ---------------------------------------------------------------------------------------------


def gone_nodes(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    is_alone = not _running(store)
    for node in _seen(store):
        if node.state == "gone":
            level = Level.DOWN if is_alone else Level.DEGRADED
            yield Finding(f"gone {node.name}", f"node {node.name} is gone", level, "nodes", node.name)
        elif node.state == "draining":
            yield Finding(f"draining {node.name}", f"node {node.name} shuts down", screen="nodes", subject=node.name)


def node_troubles(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    """What a node says of its own: store, cache, broker. When no node can store, the service is down."""
    nodes = _running(store)
    no_store = bool(nodes) and all("store" in node.troubles for node in nodes)
    for node in nodes:
        for part, words in node.troubles.items():
            level = Level.DOWN if part == "store" and no_store else Level.DEGRADED
            screen: Screen = "nodes" if part == "draining" else "queues"
            yield Finding(f"{part} {node.name}", f"{part} of {node.name}: {words}", level, screen, node.name)


def loop_lags(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    for node in _running(store):
        if node.loop_lag_ms > LOOP_LAG_MS:
            text = f"{node.name} reacts {node.loop_lag_ms:.0f} ms late"
            yield Finding(f"loop {node.name}", text, screen="nodes", subject=node.name, hold_ms=2_000)


def rebalances(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    """Nobody stores a partition while its consumers are being told who does."""
    for node in _running(store):
        if node.mode == "kafka" and not node.partitions and _is_alone_without(store, node):
            text = "no node stores anything: the partitions are being assigned"
            yield Finding("rebalance", text, screen="queues", subject=node.name, hold_ms=1_000)
            return


def mixed_versions(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    versions = sorted({node.version for node in _running(store) if node.version})
    if len(versions) > 1:
        text = f"nodes run different versions: {', '.join(versions)}"
        yield Finding("versions", text, screen="nodes", hold_ms=10_000)


# --- queues --------------------------------------------------------------------------------------------


def full_queues(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    """One finding for all of them: who is slow comes and goes, that somebody is stays."""
    clients = (
        client for watched in store.sources.values() if watched.is_current for client in watched.clients.values()
    )
    full = sorted(filter(_is_full, clients), key=lambda client: -client.depth / client.capacity)
    if full:
        worst, users = full[0], list(dict.fromkeys(client.user_id for client in full))
        named = ", ".join(users[:_NAMED]) + (", …" if len(users) > _NAMED else "")
        who = "1 connection" if len(full) == 1 else f"{len(full)} connections"
        text = f"{who} at {worst.depth}/{worst.capacity} of the send queue ({named})"
        yield Finding("send queue", text, screen="clients", subject=worst.user_id, hold_ms=5_000)


def _is_full(client: Client) -> bool:
    return 0 < client.capacity * FULL_SHARE <= client.depth


def transmit_rising(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    for node in _running(store):
        queue = node.queues.get("transmit")
        if queue is None:
            continue
        is_full = 0 < queue.capacity * FULL_SHARE <= queue.depth
        if is_full or _is_rising([point.transmit for point in _last(store.points(node.name))]):
            bound = f"/{queue.capacity}" if queue.capacity else ""
            text = f"{queue.depth}{bound} messages wait to be stored on {node.name}{'' if is_full else ', rising'}"
            yield Finding(f"transmit {node.name}", text, screen="queues", subject=node.name, hold_ms=1_000)


def status_behind(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    for node in _running(store):
        is_rising = _is_rising([point.status for point in _last(store.points(node.name))])
        queue = node.queues.get("status")
        is_full = queue is not None and 0 < queue.capacity * FULL_SHARE <= queue.depth
        if node.status_ms > STATUS_MS or is_full or is_rising:
            behind = f"{node.status_ms / 1000:.1f} s a batch" if node.status_ms > STATUS_MS else "falls behind"
            text = f"status writer of {node.name}: {behind}, {queue.depth if queue else 0} wait"
            yield Finding(f"status {node.name}", text, screen="queues", subject=node.name, hold_ms=1_000)


def drops(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    for node in _running(store):
        rates = store.rates(node.name)
        for counter, words in (("dropped", "frames find no room"), ("signals_dropped", "signals are dropped")):
            if rates[counter] > 0:
                text = f"{words} on {node.name}: {_rate(rates[counter])}"
                yield Finding(f"{counter} {node.name}", text, screen="clients", subject=node.name)


def not_stored(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    for node in _running(store):
        rates = store.rates(node.name)
        for counter, words in (("not_stored", "messages are not stored"), ("store_failures", "the store fails")):
            if rates[counter] > 0:
                text = f"{words} on {node.name}: {_rate(rates[counter])}"
                yield Finding(f"{counter} {node.name}", text, screen="messages", subject=node.name)


def login_refusals(store: MonitorStore, now_ms: int) -> Iterator[Finding]:
    for node in _running(store):
        rate = store.rates(node.name)["logins_refused"]
        if rate >= REFUSALS_PER_SECOND:
            text = f"{node.name} refuses logins: {_rate(rate)}"
            yield Finding(f"refusals {node.name}", text, screen="log", subject=node.name, hold_ms=2_000)


# --- small parts ---------------------------------------------------------------------------------------


def _running(store: MonitorStore) -> list[Node]:
    return [node for node in _seen(store) if node.state != "gone"]


def _seen(store: MonitorStore) -> list[Node]:
    """Of what nobody tells any more, that nobody tells is the finding."""
    return [node for node in store.nodes.values() if store.is_seen(node.name)]


def _is_alone_without(store: MonitorStore, node: Node) -> bool:
    return not any(other.partitions for other in _running(store) if other is not node)


def _last(points: Sequence[Point]) -> Sequence[Point]:
    return points[-_RISING_POINTS:]


def _is_rising(depths: Sequence[int]) -> bool:
    """Never down over some seconds, and by enough to matter."""
    is_climbing = all(one <= two for one, two in zip(depths, depths[1:], strict=False))
    return len(depths) == _RISING_POINTS and is_climbing and depths[-1] - depths[0] >= _RISING_LEAST


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}/s" if per_second >= 1 else f"{per_second * 60:.0f}/min"


RULES: tuple[Rule, ...] = (
    broken_links,
    gone_nodes,
    node_troubles,
    not_stored,
    full_queues,
    drops,
    transmit_rising,
    status_behind,
    rebalances,
    loop_lags,
    login_refusals,
    slow_links,
    mixed_versions,
)
