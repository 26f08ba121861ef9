"""What `kama monitor --once` prints: a verdict, the nodes, the busiest connections, the latest failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kama.commands.common import note, print_json, print_table
from kama.errors import KamaError
from kama.text import sanitize
from kama.units import format_duration, format_size

if TYPE_CHECKING:
    from kama.monitor.rules import Verdict
    from kama.monitor.store import MonitorStore
    from kama.monitor_protocol import Client, Event, Node, Snapshot

_CLIENTS = 10
_FAILURES = 10
Taken = dict[str, "Snapshot"]


async def show_snapshot(
    servers: tuple[str, ...], token: Callable[[], str], *, follow_all: bool, terms: str, as_json: bool
) -> None:
    """Ask each node once and print what they say. Raises what the first one answers, if none can be asked."""
    from kama.monitor.rules import Judge
    from kama.monitor.snapshot import take_snapshot
    from kama.monitor.store import MonitorStore

    store, now_ms = MonitorStore(), time.time_ns() // 1_000_000
    taken = await _ask(servers, token)
    if follow_all:
        others = [address for address in _addresses(taken) if address not in taken]
        taken |= await _ask(others, token) if others else {}
    for server, snapshot in taken.items():
        take_snapshot(store, server, snapshot, now_ms)
    verdict = Judge(patient=False).verdict(store, now_ms)
    if as_json:
        print_json(_as_dict(verdict, store, terms))
    else:
        _print(verdict, store, terms, now_ms)


async def _ask(servers: Any, token: Callable[[], str]) -> Taken:
    from kama.monitor.asking import ask_snapshot

    answers = await asyncio.gather(*(ask_snapshot(server, token) for server in servers), return_exceptions=True)
    taken: Taken = {}
    failures: list[KamaError] = []
    for server, answer in zip(servers, answers, strict=True):
        match answer:
            case KamaError() as error:
                failures.append(error)
                if len(answers) > 1:
                    note(f"kama: {server}: {error.message}")
            case BaseException() as error:
                raise error
            case snapshot:
                taken[server] = snapshot
    if not taken and failures:
        raise failures[0]
    return taken


def _addresses(taken: Taken) -> list[str]:
    """Of the nodes that are listed, and were not asked by another address."""
    asked = {snapshot.hello.node for snapshot in taken.values()}
    listed = {
        f"http://{node.address}"
        for snapshot in taken.values()
        for node in snapshot.snap.nodes
        if node.address and node.state != "gone" and node.name not in asked
    }
    return sorted(listed)


def _chosen(store: MonitorStore, terms: str) -> tuple[list[Client], list[Event]]:
    """The busiest connections, and the latest failures, last one first, of those that pass the filter."""
    from kama.monitor_filter import parse_filter

    passes = parse_filter(terms)
    clients = sorted(filter(passes, store.clients.values()), key=lambda client: (-client.depth, -client.out_rate))
    failures = [event for event in reversed(store.failures) if passes(event)]
    return clients[:_CLIENTS], failures[:_FAILURES]


def _as_dict(verdict: Verdict, store: MonitorStore, terms: str) -> dict[str, Any]:
    import msgspec

    clients, failures = _chosen(store, terms)
    causes = [
        {"level": cause.level.name.lower(), "text": cause.text, "subject": cause.subject} for cause in verdict.causes
    ]
    return {
        "verdict": {"level": verdict.level.name.lower(), "causes": causes},
        "nodes": msgspec.to_builtins(list(store.nodes.values())),
        "connections": store.total,
        "clients": msgspec.to_builtins(clients),
        "failures": msgspec.to_builtins(failures),
    }


def _print(verdict: Verdict, store: MonitorStore, terms: str, now_ms: int) -> None:
    clients, failures = _chosen(store, terms)
    print(verdict.level.name)
    for cause in verdict.causes:
        print(sanitize(f"  {cause.text}"))
    print()
    print_table(_NODE_HEAD, *(_node_row(node, now_ms) for node in store.nodes.values()))
    if clients:
        print()
        print_table(_CLIENT_HEAD, *(_client_row(client, now_ms) for client in clients))
    if failures:
        print()
        print_table(*map(_failure_row, failures))


_NODE_HEAD = (
    "NODE", "STATE", "UP", "CONNECTIONS", "USERS", "ACCEPTED", "STORED", "TRANSMIT", "SEND BACK", "STATUS", "P99",
    "LOOP LAG", "MEMORY", "VERSION",
)  # fmt: skip
_CLIENT_HEAD = ("USER", "NODE", "DEVICE", "QUEUE", "HIGH", "IN/s", "OUT/s", "DROPPED", "REFUSED", "IDLE")


def _node_row(node: Node, now_ms: int) -> tuple[str, ...]:
    return (
        node.name,
        node.state,
        _since(node.started_ms, now_ms),
        str(node.connections),
        str(node.users),
        str(node.counters.accepted),
        str(node.counters.stored),
        _depth(node, "transmit"),
        _depth(node, "send_back"),
        _depth(node, "status"),
        f"{node.sent_p99_ms:.0f} ms" if node.sent_p99_ms is not None else "–",
        f"{node.loop_lag_ms:.0f} ms",
        format_size(node.rss_bytes >> 20 << 20),
        node.version,
    )


def _depth(node: Node, name: str) -> str:
    queue = node.queues.get(name)
    if queue is None:
        return "–"
    return f"{queue.depth}/{queue.capacity}" if queue.capacity else str(queue.depth)


def _client_row(client: Client, now_ms: int) -> tuple[str, ...]:
    return (
        client.user_id,
        client.node,
        client.device,
        f"{client.depth}/{client.capacity}",
        str(client.high),
        f"{client.in_rate:.1f}",
        f"{client.out_rate:.1f}",
        str(client.dropped),
        str(client.refused),
        _since(client.last_ms or client.since_ms, now_ms),
    )


def _failure_row(event: Event) -> tuple[str, ...]:
    from kama.monitor.trace import describe

    at = datetime.fromtimestamp(event.at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    return at, event.node, event.kind, event.uuid, describe(event)


def _since(at_ms: int, now_ms: int) -> str:
    """Whole seconds since then; another machine's clock may be ahead of this one."""
    return format_duration(max(0, now_ms - at_ms) // 1000) if at_ms else "–"
