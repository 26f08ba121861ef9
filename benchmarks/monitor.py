"""`python -m benchmarks.monitor`: what the dashboard costs whoever looks at it, and the node that is looked at.

The dashboard is `kama monitor` on a terminal of its own. It watches 5,000 connections and 2,000 messages a second of a
`benchmarks.busy_node`; what watching costs a node is measured on `kama serve` under `kama bench`. Reads /proc: Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.dashboard import Dashboard
from benchmarks.servers import KEEPER, SECRET, BusyNode, KamaServer, ServerFailed
from kama.monitor.asking import ask_snapshot
from kama.monitor.live_source import LiveSource
from kama.monitor.options import MonitorOptions
from kama.tui.feed import Feed

SIZES = ((80, 24), (120, 40))
# By then the lists of the dashboard are full, and it has no more to lay out anew.
_WARM_UP_S = 12.0
_WINDOW_S = 2.0
_PAUSE_S = 1.0  # after a watcher came or left
_SAMPLE_S = 5.0
_RSS_AT_S = 10.0
_STARTS = 5
# Both sides keep a quarter of an hour of history: until it is there, growth says nothing.
_FULL_MIN = 30.0


@dataclass(frozen=True, slots=True)
class Figure:
    """`values` one a window, turn or start; `budget` is for their median: the most, or the least where `at_least`."""

    name: str
    unit: str
    values: Sequence[float]
    budget: float | None = None
    at_least: bool = False

    @property
    def holds(self) -> bool | None:
        """None: nothing is asked of it."""
        if self.budget is None:
            return None
        median = statistics.median(self.values)
        return median >= self.budget if self.at_least else median <= self.budget


# --- the dashboard -------------------------------------------------------------------------------------


def cost_of_dashboard(url: str, columns: int, rows: int, seconds: float) -> list[Figure]:
    size = f"{columns}x{rows}"
    with Dashboard(url, columns, rows) as dashboard:
        dashboard.wait_until_live()
        time.sleep(_WARM_UP_S)
        first_kib: float | None = None
        cpu: list[float] = []
        output: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            used, written, at = dashboard.cpu_seconds(), dashboard.written, time.monotonic()
            time.sleep(_WINDOW_S)
            took = time.monotonic() - at
            cpu.append(100 * (dashboard.cpu_seconds() - used) / took)
            output.append((dashboard.written - written) / 1024 / took)
            if first_kib is None and dashboard.age_s >= _RSS_AT_S:
                first_kib = dashboard.resident_kib()
        last_kib = dashboard.resident_kib()
    is_small = (columns, rows) == SIZES[0]
    return [
        Figure(f"{size} CPU", "% of a core", cpu, 8.0),
        Figure(f"{size} output", "KiB/s", output, 25.0 if is_small else None),
        Figure(f"{size} memory after {_RSS_AT_S:g} s", "MiB", [(first_kib or last_kib) / 1024]),
        Figure(f"{size} memory at the end", "MiB", [last_kib / 1024]),
    ]


def time_to_start(url: str) -> list[Figure]:
    painted: list[float] = []
    live: list[float] = []
    for _ in range(_STARTS):
        with Dashboard(url, *SIZES[0]) as dashboard:
            live.append(dashboard.wait_until_live())
            painted.append(dashboard.painted_s or live[-1])
    return [
        Figure("start to first frame", "s", painted, 1.0),
        Figure("start to the node's numbers", "s", live),
    ]


# --- the node ------------------------------------------------------------------------------------------


class Load:
    """`kama bench` at a fixed rate, from `with` to its end."""

    def __init__(self, url: str, rate: int, pairs: int, seconds: float) -> None:
        self._command = [
            *(sys.executable, "-m", "kama", "bench", "-s", url, "--json", "--duration", f"{seconds:g}s"),
            *("--rate", str(rate), "--pairs", str(pairs)),
        ]

    def __enter__(self) -> Load:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAMA_")}
        self._process = subprocess.Popen(
            self._command, env={**environment, "KAMA_AUTH__SECRET": SECRET}, stdout=subprocess.DEVNULL
        )
        return self

    def check(self) -> None:
        """Raises ServerFailed when it has ended already."""
        if self._process.poll() is not None:
            raise ServerFailed(f"kama bench ended with {self._process.returncode} before the last turn")

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def cost_of_watching(turns: int, turn_s: float, rate: int, pairs: int) -> list[Figure]:
    """Turns with and without a watcher of one node under one load."""
    with KamaServer("normal") as node:
        enough = (turns + 1) * (turn_s + 3 * _PAUSE_S) + 30
        with Load(node.url, rate, pairs, enough) as load:
            time.sleep(_WARM_UP_S)
            watched: list[float] = []
            unwatched: list[float] = []
            for turn in range(turns):
                is_watched = turn % 2 == 1
                (watched if is_watched else unwatched).append(asyncio.run(_turn(node, turn_s, is_watched)))
                load.check()
    # Of neighbours in time, which saw the same weather: what the median of all hides is seen in their spread.
    ratios = [without / with_ for without, with_ in zip(unwatched, watched, strict=True)]
    ratio = statistics.median(unwatched) / statistics.median(watched)
    return [
        Figure("node, unwatched", "CPU us/message", unwatched),
        Figure("node, watched", "CPU us/message", watched),
        Figure("unwatched / watched, of the medians", "", [ratio], 0.97, at_least=True),
        Figure("unwatched / watched, of each two turns", "", ratios),
    ]


async def _turn(node: KamaServer, seconds: float, is_watched: bool) -> float:
    """Microseconds of the node's CPU by message that it stored meanwhile."""
    async with AsyncExitStack() as stack:
        if is_watched:
            source = await stack.enter_async_context(LiveSource(node.url, _token))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            watching = tasks.create_task(Feed(source, MonitorOptions((node.url,), _token)).run())
            stack.callback(watching.cancel)
        await asyncio.sleep(_PAUSE_S)
        stored, used = await _stored(node), node.cpu_seconds()
        await asyncio.sleep(seconds)
        used = node.cpu_seconds() - used
        stored = await _stored(node) - stored
    if stored == 0:
        raise ServerFailed("the node stored nothing during a turn")
    return used * 1e6 / stored


async def _stored(node: KamaServer) -> int:
    return (await ask_snapshot(node.url, _token)).snap.nodes[0].counters.stored


def _token() -> str:
    return KEEPER.issue("Uwatcher", 3600, "viewer")


# --- memory --------------------------------------------------------------------------------------------


def growth(node: BusyNode, minutes: float) -> list[Figure]:
    """Of dashboard and node, over the last two thirds of that time; of the last half, where both are full by then."""
    columns, rows = SIZES[0]
    at: list[float] = []
    resident: dict[str, list[float]] = {"dashboard": [], "node": []}
    with Dashboard(node.url, columns, rows) as dashboard:
        dashboard.wait_until_live()
        started = time.monotonic()
        while (now := time.monotonic() - started) < minutes * 60:
            at.append(now / 60)
            resident["dashboard"].append(dashboard.resident_kib())
            resident["node"].append(node.resident_kib())
            time.sleep(_SAMPLE_S)
    warm = len(at) // 2 if minutes >= _FULL_MIN else len(at) // 3
    budget = 100.0 if minutes >= _FULL_MIN else None
    return [
        Figure(f"{who} growth over {minutes:g} min", "KiB/min", [slope(at[warm:], kib[warm:])], budget)
        for who, kib in resident.items()
    ]


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """Of the straight line through them; 0 through one."""
    return statistics.linear_regression(at, values).slope if len(at) > 1 else 0.0


# --- what is told --------------------------------------------------------------------------------------


def table(figures: Sequence[Figure]) -> str:
    rows = [("", "median (least-greatest)", "budget", "")]
    for figure in figures:
        sign = ">=" if figure.at_least else "<="
        budget = "" if figure.budget is None else f"{sign} {figure.budget:g} {figure.unit}".rstrip()
        verdict = {True: "holds", False: "missed", None: ""}[figure.holds]
        rows.append((figure.name, f"{spread(figure.values)} {figure.unit}".rstrip(), budget, verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def spread(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.4g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.4g}-{max(values):.4g})"


def measure(options: argparse.Namespace) -> list[Figure]:
    figures: list[Figure] = []
    with BusyNode(options.connections, options.rate) as node:
        for columns, rows in SIZES:
            figures += cost_of_dashboard(node.url, columns, rows, options.seconds)
        figures += time_to_start(node.url)
        figures += growth(node, options.minutes)
    figures += cost_of_watching(options.turns, options.turn_seconds, options.bench_rate, options.pairs)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitor", description=__doc__)
    parser.add_argument("--connections", type=int, default=5_000, help="of the node that the dashboard shows")
    parser.add_argument("--rate", type=int, default=2_000, help="messages a second on that node")
    parser.add_argument("--seconds", type=float, default=20.0, help="measured of a dashboard of each size")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long memory is looked at; judged from 30 on")
    parser.add_argument("--turns", type=int, default=12, help="without and with a watcher, one after the other; even")
    parser.add_argument("--turn-seconds", type=float, default=8.0)
    parser.add_argument("--bench-rate", type=int, default=300, help="messages a second in these turns")
    parser.add_argument("--pairs", type=int, default=50, help="of users in these turns")
    parser.add_argument("--json", action="store_true", help="every value of every figure")
    options = parser.parse_args()
    if options.turns < 2 or options.turns % 2:
        parser.error(f"expected an even number of turns, got {options.turns}")
    before = os.getloadavg()[0]
    try:
        figures = measure(options)
    except ServerFailed as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 1
    load = {"before": before, "after": os.getloadavg()[0], "cores": os.cpu_count()}
    if options.json:
        told = [
            {"name": it.name, "unit": it.unit, "values": it.values, "budget": it.budget, "holds": it.holds}
            for it in figures
        ]
        print(json.dumps({"load": load, "figures": told}))
    else:
        print(table(figures))
        print(f"\nload average {load['before']:.2f} before, {load['after']:.2f} after, on {load['cores']} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
