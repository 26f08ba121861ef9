"""`python -m benchmarks.scale`: what a message costs as a cluster grows. docs/scale.md says what the figures mean.

It needs a Kafka, a Redis and a PostgreSQL on this machine that it may fill and empty:

    scripts/services run kafka redis postgres -- .venv/bin/python -m benchmarks.scale
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence

from benchmarks.client import Failed
from benchmarks.scale import directory, fanout, nodes, prediction, rows
from benchmarks.scale.costs import Costs
from benchmarks.scale.nodes import Measured
from benchmarks.scale.places import NoService, Places
from benchmarks.scale.sizes import TINY, Sizes
from benchmarks.scale.table import Table
from benchmarks.servers import ServerFailed
from kama.server.logs import configure_logs

PARTS = ("directory", "fanout", "rows", "nodes", "model")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    configure_logs("error", "text")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a new group has no coordinator yet, and it says so
    try:
        asyncio.run(run(options))
    except (NoService, ServerFailed, Failed) as error:
        print(f"benchmarks.scale: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def run(options: argparse.Namespace) -> None:
    """Each part's tables as soon as it is done. Raises NoService and ServerFailed."""
    sizes = TINY if options.tiny else Sizes()
    measured: list[Measured] = []
    apart: Sequence[float] = (1.0, 1.0)
    if not options.json:
        print("\n".join(f"{name:<12}{value}" for name, value in conditions().items()), "\n")
    done: list[Table] = []
    for part in options.part or PARTS:
        if part == "model":
            tables = prediction.tables(Costs(), measured, apart, sizes)
        elif part == "nodes":
            measured, apart = await nodes.run(Places.find(), sizes)
            tables = nodes.tables(measured, apart)
        else:
            tables = await {"directory": directory, "fanout": fanout, "rows": rows}[part].measure(Places.find(), sizes)
        done += tables
        for table in [] if options.json else tables:
            print(table.to_text(), "\n", flush=True)
    if options.json:
        print(json.dumps({"conditions": conditions(), "tables": [table.as_dict() for table in done]}, indent=2))


def conditions() -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cores": str(len(os.sched_getaffinity(0))),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="this one; may be given again. The model takes "
                        "its costs from `nodes` when that runs before it, else those of docs/scale.md")  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="a few of everything: does it work at all")
    parser.add_argument("--json", action="store_true", help="all tables as one JSON object")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
