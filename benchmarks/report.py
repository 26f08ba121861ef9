"""From the figures of all rounds to tables: medians with their spread, and their ratios to the bare relay."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load import Figures

CLIENT_BUSY = 90.0
OTHERS_BUSY = 25.0
LATE_MS = 1.0


@dataclass(frozen=True)
class Column:
    """One figure of a scenario. `ratio`: of its median to that of the scenario's reference."""

    figure: str
    title: str
    digits: int = 0
    ratio: bool = False


_LATENCY = (Column("p50_ms", "p50 ms", 2), Column("p99_ms", "p99 ms", 2))
_CPU = (
    Column("children_us", "children us", 1),
    Column("behind_s", "behind s", 1),
    Column("server_cpu", "server %"),
    Column("client_cpu", "client %"),
    Column("others_cpu", "others %"),
)
_RELAY = (Column("rate", "messages/s", 0, True), *_LATENCY, Column("server_us", "us/message", 1, True), *_CPU)


@dataclass(frozen=True)
class Scenario:
    """`reference`: the server that ratios are to."""

    title: str
    reference: str
    columns: Sequence[Column]


BARE = "node ws"
SCENARIOS = {
    "relay": Scenario("1:1 relay, closed loop", BARE, _RELAY),
    "rate": Scenario(
        "1:1 relay at a fixed rate",
        BARE,
        (
            Column("rate", "messages/s"),
            Column("p50_ms", "p50 ms", 2, True),
            Column("p99_ms", "p99 ms", 2, True),
            Column("server_us", "us/message", 1, True),
            *_CPU[:3],
            Column("late_p99_ms", "client late p99 ms", 2),
            _CPU[-1],
        ),
    ),
    "group": Scenario(
        "group fan-out",
        BARE,
        (Column("rate", "deliveries/s", 0, True), *_LATENCY, Column("server_us", "us/delivery", 1, True), *_CPU),
    ),
    "idle": Scenario(
        "logins, and connections that say nothing",
        BARE,
        (
            Column("rate", "logins/s", 0, True),
            Column("server_us", "us/login", 0, True),
            Column("kib", "KiB/connection", 1, True),
            *_CPU[2:],
        ),
    ),
    "full": Scenario("1:1 relay on a full store", "kama, empty", _RELAY),
}
NOTES = (
    "medians (least-greatest) of the rounds; x: ratio of the medians to the reference",
    "us: CPU of the server's process a message; its children's apart, counted until they have nothing left to do",
    "% of a core; client: this benchmark's own",
    "a relayed message is two frames everywhere: the receiver's and the sender's echo; kama is asked for no ack",
    "every round: all that was sent was received, once and in order; kama's store holds it, seqs 1 to n",
)


@dataclass
class Run:
    """`rounds`: by scenario and server. `absent`: why a server has no row."""

    conditions: dict[str, Any]
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)

    def add(self, scenario: str, server: str, figures: Figures) -> None:
        self.rounds.setdefault(scenario, {}).setdefault(server, []).append(figures)

    def median(self, scenario: str, server: str, figure: str) -> float | None:
        """None when it was not measured in each round."""
        rounds = self.rounds.get(scenario, {}).get(server, [])
        values = [figures[figure] for figures in rounds if figure in figures]
        return statistics.median(values) if values and len(values) == len(rounds) else None

    def is_bounded(self, scenario: str, server: str) -> bool:
        """Whether the client, and not the server, may be what was measured."""
        if scenario == "rate":  # there the client never rests
            late = self.median(scenario, server, "late_p99_ms")
            return late is not None and late > LATE_MS
        busy = self.median(scenario, server, "client_cpu")
        return busy is not None and busy > CLIENT_BUSY

    def warnings(self) -> list[str]:
        """What a reader of the figures must know."""
        found = list(self.oddities)
        for scenario, servers in self.rounds.items():
            for server in servers:
                if self.is_bounded(scenario, server):
                    found.append(f"{scenario}, {server}: the client is the limit, the figures are lower bounds (*)")
        for server, rounds in self.rounds.get("rate", {}).items():
            peaks = [figures["peak"] for figures in rounds if "rate" not in figures]
            if peaks:
                could = f"it did {statistics.median(peaks):,.0f} messages/s"
                found.append(f"rate, {server}: in {len(peaks)} of {len(rounds)} rounds more than it can do: {could}")
        others = max((figures.get("others_cpu", 0.0) for figures in self._all()), default=0.0)
        if others > OTHERS_BUSY:
            found.append(f"other programs used up to {others:.0f} % of a core: rates and latencies are theirs too")
        return found

    def _all(self) -> Iterator[Figures]:
        for servers in self.rounds.values():
            for rounds in servers.values():
                yield from rounds


# --- JSON ----------------------------------------------------------------------------------------------


def to_json(run: Run) -> str:
    figures = {name: {server: _summary(run, name, server) for server in run.rounds[name]} for name in run.rounds}
    document = {
        "conditions": run.conditions,
        "figures": figures,
        "rounds": run.rounds,
        "absent": run.absent,
        "warnings": run.warnings(),
    }
    return json.dumps(document, indent=2)


def _summary(run: Run, name: str, server: str) -> dict[str, Any]:
    rounds = run.rounds[name][server]
    summary: dict[str, Any] = {"client_is_the_limit": run.is_bounded(name, server)}
    for column in SCENARIOS[name].columns:
        values = [figures[column.figure] for figures in rounds if column.figure in figures]
        if values:
            summary[column.figure] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
            if column.ratio:
                summary[column.figure]["ratio"] = ratio(run, name, server, column.figure)
    return summary


def ratio(run: Run, name: str, server: str, figure: str) -> float | None:
    """Of the medians, to the scenario's reference. None where either has none."""
    mine = run.median(name, server, figure)
    reference = run.median(name, SCENARIOS[name].reference, figure)
    return mine / reference if mine is not None and reference else None


# --- tables --------------------------------------------------------------------------------------------


def to_text(run: Run) -> str:
    lines: list[str] = []
    for name, servers in run.rounds.items():
        scenario = SCENARIOS[name]
        lines += [f"{name}: {scenario.title}; x: times {scenario.reference}", ""]
        header = ["", *(title for column in scenario.columns for title in _titles(column))]
        lines += _aligned([header, *(_row(run, name, server) for server in servers)])
        lines += ["", *(f"  {server}: not here: {why}" for server, why in run.absent.items()), ""]
    lines += [*NOTES, "", *(f"! {warning}" for warning in run.warnings())]
    width = max(map(len, run.conditions))
    lines += [f"{name:<{width}}  {value}" for name, value in run.conditions.items()]
    return "\n".join(lines)


def _titles(column: Column) -> list[str]:
    return [column.title, "x"] if column.ratio else [column.title]


def _row(run: Run, name: str, server: str) -> list[str]:
    cells = [f"{server}{' *' if run.is_bounded(name, server) else ''}"]
    for column in SCENARIOS[name].columns:
        values = [figures[column.figure] for figures in run.rounds[name][server] if column.figure in figures]
        cells.append(_spread(values, column.digits))
        if column.ratio:
            found = ratio(run, name, server, column.figure)
            cells.append("-" if found is None else f"{found:.2f}")
    return cells


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    median, least, greatest = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return median if least == greatest else f"{median} ({least}-{greatest})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [f"  {row[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
