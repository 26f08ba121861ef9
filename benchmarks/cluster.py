"""`python -m benchmarks.cluster`: two nodes against one, and what Kafka adds to the latency; on PostgreSQL throughout.

Takes Kafka, Redis and PostgreSQL from where `eval "$(scripts/services up kafka redis postgres)"` says they are.
The layouts take turns, each on nodes and a topic of its own, each loaded by `kama bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.servers import SECRET, KamaServer, ServerFailed

_SERVICES = ("KAMA_KAFKA__BOOTSTRAP_SERVERS", "KAMA_REDIS__URL", "KAMA_STORE__URL")


class ClusterNode(KamaServer):
    """A node on the services that the environment names, in either mode."""

    def __init__(self, mode: str, topic: str) -> None:
        super().__init__("normal")
        self._settings = {"KAMA_STORE__URL": os.environ["KAMA_STORE__URL"]}
        if mode == "kafka":
            self._settings |= {name: os.environ[name] for name in _SERVICES}
            self._settings |= {"KAMA_NODE__MODE": "kafka", "KAMA_KAFKA__TOPIC": topic, "KAMA_KAFKA__GROUP": topic}

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), **self._settings}


@dataclass
class Figures:
    """Of one layout, one value a round: messages/s as fast as it goes, and at the given rate milliseconds from the
    client's write to the receiver's receipt; microseconds of all nodes' CPU by message."""

    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


LAYOUTS: Mapping[str, tuple[str, int]] = {
    "channel, one node": ("channel", 1),
    "kafka, one node": ("kafka", 1),
    "kafka, two nodes": ("kafka", 2),
}


def measure(layout: str, figures: Figures, options: argparse.Namespace) -> None:
    mode, count = LAYOUTS[layout]
    topic = f"benchmark_{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(ClusterNode(mode, topic)) for _ in range(count)]
        before = sum(node.cpu_seconds() for node in nodes)
        fast = load(nodes, "--pairs", str(options.pairs), "--duration", f"{options.seconds}s")
        used = sum(node.cpu_seconds() for node in nodes) - before
        calm = load(nodes, "--pairs", "20", "--duration", f"{options.seconds}s", "--rate", str(options.rate))
        for node in nodes:
            node.stop()
    figures.rates.append(fast["per_second"]["received"])
    figures.cpu.append(used * 1e6 / fast["received"])
    figures.p50.append(calm["latency_ms"]["receive"]["p50"])
    figures.p99.append(calm["latency_ms"]["receive"]["p99"])


def load(nodes: Sequence[KamaServer], *arguments: str) -> dict[str, Any]:
    """What `kama bench` says. Raises ServerFailed when it found anything lost, doubled or out of order."""
    servers = [part for node in nodes for part in ("-s", node.url)]
    command = [sys.executable, "-m", "kama", "bench", *servers, *arguments, "--verify", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAMA_")}
    done = subprocess.run(
        command, env={**environment, "KAMA_AUTH__SECRET": SECRET}, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise ServerFailed(f"kama bench ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def table(measured: Mapping[str, Figures], options: argparse.Namespace) -> str:
    rows: list[tuple[str, ...]] = [("", "messages/s", "CPU us/message", f"p50 ms at {options.rate}/s", "p99 ms")]
    rows += [(layout, *map(spread, (it.rates, it.cpu, it.p50, it.p99))) for layout, it in measured.items()]
    channel, one, two = measured.values()
    rows.append(("two nodes / one", ratio(two.rates, one.rates), ratio(two.cpu, one.cpu), "", ""))
    rows.append(("kafka - channel", "", "", difference(one.p50, channel.p50), difference(one.p99, channel.p99)))
    return "\n".join("  ".join(cell.ljust(24) for cell in row).rstrip() for row in rows)


def spread(values: Sequence[float]) -> str:
    """The median (least-greatest)."""
    return f"{statistics.median(values):,.4g} ({min(values):,.4g}-{max(values):,.4g})"


def ratio(one: Sequence[float], other: Sequence[float]) -> str:
    """Of the medians (the least and greatest within one round)."""
    each = [a / b for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(one) / statistics.median(other):.2f} ({min(each):.2f}-{max(each):.2f})"


def difference(one: Sequence[float], other: Sequence[float]) -> str:
    each = [a - b for a, b in zip(one, other, strict=True)]
    return f"{statistics.median(one) - statistics.median(other):+.1f} ({min(each):+.1f}-{max(each):+.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured of each load")
    parser.add_argument("--pairs", type=int, default=50, help="of users; with two nodes, one of each on each")
    parser.add_argument("--rate", type=int, default=100, help="messages a second where latency is measured")
    options = parser.parse_args()
    if missing := [name for name in _SERVICES if name not in os.environ]:
        print(f"benchmarks: expected {', '.join(missing)}: see `scripts/services up`", file=sys.stderr)
        return 2
    measured = {layout: Figures() for layout in LAYOUTS}
    try:
        for _ in range(options.rounds):
            for layout, figures in measured.items():
                measure(layout, figures, options)
    except ServerFailed as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 1
    print(table(measured, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
