"""From the figures of all rounds to a table: medians, and ratios with their spread."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.load import Figures
from benchmarks.peer import MESSAGE_BYTES

SCENARIOS = ("relay", "group", "idle")
CLIENT_BUSY = 85.0
OTHERS_BUSY = 25.0


@dataclass(frozen=True)
class Row:
    """One line of the table. `better`: whether a ratio above 1 is good for kama."""

    figure: str
    title: str
    better: str
    digits: int = 0


_LOAD = (Row("p50_ms", "p50 ms", "lower", 2), Row("p99_ms", "p99 ms", "lower", 2))
_CPU = (
    Row("server_cpu", "server CPU %", ""),
    Row("client_cpu", "client CPU %", ""),
    Row("others_cpu", "others' CPU %", ""),
)
ROWS = {
    "relay": (Row("rate", "messages/s", "higher"), *_LOAD, Row("server_us", "server us/message", "lower", 1), *_CPU),
    "group": (Row("rate", "deliveries/s", "higher"), *_LOAD, Row("server_us", "server us/delivery", "lower", 1), *_CPU),
    "idle": (
        Row("kib", "KiB/connection", "lower", 1),
        Row("rate", "logins/s", "higher"),
        Row("server_us", "server us/login", "lower"),
        *_CPU,
    ),
}


@dataclass
class Run:
    conditions: dict[str, Any]
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)

    def add(self, scenario: str, server: str, figures: Figures) -> None:
        self.rounds.setdefault(scenario, {}).setdefault(server, []).append(figures)

    def warnings(self) -> list[str]:
        """What a reader of the figures must know."""
        found = list(self.oddities)
        for scenario, servers in self.rounds.items():
            for server, rounds in servers.items():
                client = max(figures["client_cpu"] for figures in rounds)
                if client > CLIENT_BUSY:
                    found.append(
                        f"{scenario}, {server}: the client used up to {client:.0f} % of a core, so the server may be "
                        "faster than these figures"
                    )
        others = max(figures["others_cpu"] for figures in self._all())
        if others > OTHERS_BUSY:
            found.append(
                f"other programs used up to {others:.0f} % of a core meanwhile: rates and latencies are theirs too, "
                "prefer server us"
            )
        return found

    def _all(self) -> Iterator[Figures]:
        for servers in self.rounds.values():
            for rounds in servers.values():
                yield from rounds


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("kama", "uvicorn", "websockets", "starlette", "uvloop", "httptools")},
        "rounds": options.rounds,
        "seconds": options.seconds,
        "warm-up": options.warm_up,
        "pairs": f"{options.pairs}, {options.window} messages under way in each",
        "group": f"{options.members} members, {options.group_window} messages under way",
        "idle connections": options.connections,
        "message bytes": MESSAGE_BYTES,
        "kama's SQLite": f"synchronous {options.synchronous}",
        "servers": "a fresh process and data folder for each scenario of each round",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def to_json(run: Run) -> str:
    figures = {scenario: _summary(scenario, servers) for scenario, servers in run.rounds.items()}
    document = {"conditions": run.conditions, "figures": figures, "rounds": run.rounds, "warnings": run.warnings()}
    return json.dumps(document, indent=2)


def _summary(scenario: str, servers: dict[str, list[Figures]]) -> dict[str, Any]:
    return {row.figure: compare(row.figure, servers) for row in ROWS[scenario]}


def compare(figure: str, servers: dict[str, list[Figures]]) -> dict[str, Any]:
    """Medians over the rounds, their ratio, and the least and greatest ratio within one round."""
    kama = [figures[figure] for figures in servers["kama"]]
    bare = [figures[figure] for figures in servers["bare"]]
    ratios = [one / other for one, other in zip(kama, bare, strict=True) if other]
    medians = statistics.median(kama), statistics.median(bare)
    return {
        "kama": {"median": medians[0], "min": min(kama), "max": max(kama)},
        "bare": {"median": medians[1], "min": min(bare), "max": max(bare)},
        "ratio": medians[0] / medians[1] if medians[1] else None,
        "ratio_min": min(ratios, default=None),
        "ratio_max": max(ratios, default=None),
    }


# --- the table -----------------------------------------------------------------------------------------

_LINE = "{:<22}{:<8}{:>28}{:>28}{:>22}"


def to_text(run: Run) -> str:
    lines = [_LINE.format("", "better", "kama", "bare relay", "kama / bare"), ""]
    for scenario, servers in run.rounds.items():
        lines.append(scenario)
        lines += [_line(row, compare(row.figure, servers)) for row in ROWS[scenario]]
        lines.append("")
    lines.append("medians (min-max) of the rounds; the ratio is of the medians (min-max of the ratios of each round)")
    lines.append(
        "every round: what was sent was received and echoed once, in order; kama's store holds it, seqs 1 to n"
    )
    lines += ["", *(f"! {warning}" for warning in run.warnings())]
    lines += [f"{name:<18}{value}" for name, value in run.conditions.items()]
    return "\n".join(lines)


def _line(row: Row, compared: dict[str, Any]) -> str:
    ratio = compared["ratio"]
    shown = f"{ratio:.2f} ({compared['ratio_min']:.2f}-{compared['ratio_max']:.2f})" if ratio and row.better else ""
    sides = [_side(compared[server], row.digits) for server in ("kama", "bare")]
    return _LINE.format(f"  {row.title}", row.better, *sides, shown)


def _side(values: dict[str, float], digits: int) -> str:
    return f"{values['median']:,.{digits}f} ({values['min']:,.{digits}f}-{values['max']:,.{digits}f})"
