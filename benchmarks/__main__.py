"""`python -m benchmarks`: measure kama and the bare relay in turn, and print the ratios."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from benchmarks import group, idle, relay
from benchmarks.check import check_store
from benchmarks.load import Figures, Timing
from benchmarks.peer import Failed
from benchmarks.report import SCENARIOS, Run, conditions, to_json, to_text
from benchmarks.servers import BareServer, KamaServer, Server, ServerFailed, raise_file_limit

Sent = dict[str, int]
_DEFAULTS = {"rounds": 5, "seconds": 4.0, "warm_up": 1.0, "connections": 2000}
_QUICK = {"rounds": 2, "seconds": 1.5, "warm_up": 0.5, "connections": 500}


def main() -> int:
    options = parse()
    raise_file_limit(options.connections + 1000)
    # On either, the servers are ended and their data is removed on the way out. SIGINT too is set here: a shell
    # starts its background jobs without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    run = Run(conditions(options))
    try:
        for number in range(1, options.rounds + 1):
            for scenario in options.only or SCENARIOS:
                for server in (KamaServer(options.synchronous, options.websocket), BareServer()):
                    progress(f"round {number} of {options.rounds}: {scenario}, {server.name} ")
                    run.add(scenario, server.name, measure(server, scenario, options, run.oddities))
    except (Failed, ServerFailed) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("ended before the last round: no figures")
        return 130
    progress("")
    print(to_json(run) if options.json else to_text(run))
    return 0


def measure(server: Server, scenario: str, options: argparse.Namespace, oddities: list[str]) -> Figures:
    """One scenario on a fresh server, checked. Raises Failed and ServerFailed."""
    with server:
        figures: Figures
        sent: Sent
        figures, sent = in_loop(lambda: _run(server, scenario, options))
        oddities += [f"{server.name} in {scenario} logged: {line[:200]}" for line in server.complaints()[:3]]
        server.stop()
        if isinstance(server, KamaServer):
            check_store(server.database, sent)
    return figures


async def _run(server: Server, scenario: str, options: argparse.Namespace) -> tuple[Figures, Sent]:
    timing = Timing(options.warm_up, options.seconds)
    if scenario == "relay":
        return await relay.run(server, timing, options.pairs, options.window)
    if scenario == "group":
        return await group.run(server, timing, options.members, options.group_window)
    return await idle.run(server, options.connections), {}


def in_loop(job: Callable[[], Awaitable[Any]]) -> Any:
    """With uvloop when it is there, and without pauses for the collector: the client is not what is measured."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        from uvloop import new_event_loop as factory

    async def run() -> Any:
        return await job()

    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(run())
    finally:
        gc.enable()


def progress(text: str) -> None:
    """How far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    progress("")
    print(f"benchmarks: {text}", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 30 s: 2 short rounds, enough to see that it works")
    parser.add_argument("--json", action="store_true", help="every figure of every round, as JSON")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this one; may be given again")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="measured of each load")
    parser.add_argument("--warm-up", type=float, help="seconds of load before")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--window", type=int, default=2, help="messages under way in each pair")
    parser.add_argument("--members", type=int, default=100)
    parser.add_argument("--group-window", type=int, default=4, help="messages under way in the group")
    parser.add_argument("--connections", type=int, help="idle ones")
    parser.add_argument("--synchronous", choices=("normal", "full"), default="normal", help="kama's SQLite")
    parser.add_argument(
        "--websocket", choices=("auto", "picows", "websockets"), default="auto", help="kama's transport"
    )
    options = parser.parse_args()
    defaults = _QUICK if options.quick else _DEFAULTS
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    sys.exit(main())
