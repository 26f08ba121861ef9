"""A line on a terminal that shows how a run goes on."""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kama.bench.plan import Plan
from kama.bench.tally import Reading, Tally

_EVERY = 0.5


async def show_progress(plan: Plan, tally: Tally) -> None:
    """On stderr, until cancelled; then the line is gone."""
    columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, auto_refresh=False) as progress:
        task = progress.add_task(tally.phase, total=plan.warmup + plan.duration, told="")
        last = tally.read()
        while True:
            await asyncio.sleep(_EVERY)
            now = tally.read()
            elapsed = perf_counter() - tally.zero + plan.warmup if tally.zero else 0.0
            progress.update(task, description=tally.phase, completed=elapsed, told=_told(plan, tally, last, now))
            progress.refresh()
            last = now


def _told(plan: Plan, tally: Tally, last: Reading, now: Reading) -> str:
    wall = now.wall - last.wall
    names = ("logins",) if plan.pattern == "connect" else ("sent", "acked", "received")
    rates = [f"{name} {(getattr(now, name) - getattr(last, name)) / wall:.0f}/s" for name in names]
    return "  ".join([*rates, f"reconnects {tally.reconnects}"])
