"""`python -m benchmarks`: kama side by side with other servers, in turns, each on a core of its own."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

from benchmarks import contestants, full, group, idle, relay
from benchmarks.check import check_store
from benchmarks.client import Failed, in_loop
from benchmarks.conditions import conditions
from benchmarks.full import FullNode
from benchmarks.load import Figures, Timing
from benchmarks.report import BARE, SCENARIOS, Run, to_json, to_text
from benchmarks.servers import KamaServer, Server, ServerFailed, raise_file_limit

_DEFAULTS = {"rounds": 5, "seconds": 4.0, "warm_up": 1.0, "connections": 5000}
_QUICK = {"rounds": 1, "seconds": 1.5, "warm_up": 0.5, "connections": 1000}
_PROBE = Timing(1.0, 1.0)


def main() -> int:
    options = parse()
    raise_file_limit(options.connections + 1000)
    # On either, the servers are ended and their data is removed on the way out. SIGINT too is set here: a shell
    # starts its background jobs without it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        run = Benchmark(options).run()
    except (Failed, ServerFailed) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("ended before the last round: no figures")
        return 130
    progress("")
    print(to_json(run) if options.json else to_text(run))
    return 0


class Benchmark:
    """All scenarios: in each round of one, every server in turn. Raises Failed when none of the servers is here."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._cores = sorted(os.sched_getaffinity(0))
        self._rate = 0.0
        absent: dict[str, str] = {}
        progress("looking for the peers, and installing what they need ")
        self._servers = contestants.contestants(options, absent)
        if not self._servers:
            raise Failed(
                "none of these servers is here: " + ", ".join(f"{name} ({why})" for name, why in absent.items())
            )
        self._run = Run(conditions(options, self._servers, self._cores), absent=absent)

    def run(self) -> Run:
        """Raises Failed and ServerFailed."""
        rounds = self._options.rounds
        os.sched_setaffinity(0, {self._cores[-1]})
        for scenario in self._options.only or SCENARIOS:
            for number in range(1, rounds + 1):
                for server in self._taking_part(scenario):
                    progress(f"{scenario}, round {number} of {rounds}: {server.name} ")
                    self._run.add(scenario, server.name, self._measure(server, scenario))
        return self._run

    def _taking_part(self, scenario: str) -> Sequence[Server]:
        if scenario == "full":
            return contestants.full_and_empty(self._options)
        if scenario == "rate" and not self._rate:
            self._rate = self._run.conditions["rate, messages/s"] = round(self._find_rate())
        if scenario == "idle":  # where nothing is stored, there is one kama
            return [server for server in self._servers if server.name != contestants.KAMA_DISK]
        return self._servers

    def _find_rate(self) -> float:
        """What was asked for, and at most half of what the bare relay (without it: the first server) can do."""
        servers = {server.name: server for server in self._servers}
        reference = servers.get(BARE, self._servers[0])
        peak = self._run.median("relay", reference.name, "rate")
        if peak is None:
            progress(f"looking for what {reference.name} can do ")
            peak = self._in_turn(reference, lambda: relay.run(reference, _PROBE, self._options.pairs))["rate"]
        asked: float = self._options.rate
        return min(asked, peak / 2)

    def _measure(self, server: Server, scenario: str) -> Figures:
        options = self._options
        timing = Timing(options.warm_up, options.seconds)

        async def idle_run() -> tuple[Figures, relay.Sent]:
            return await idle.run(server, options.connections), {}

        jobs: dict[str, Callable[[], Awaitable[tuple[Figures, relay.Sent]]]] = {
            "relay": lambda: relay.run(server, timing, options.pairs),
            "rate": lambda: relay.run_paced(server, timing, options.pairs, self._rate),
            "group": lambda: group.run(server, timing, options.members, options.group_window),
            "idle": idle_run,
        }
        if isinstance(server, KamaServer):
            jobs["full"] = lambda: full.run(server, timing, options.pairs, options.connections)
        return self._in_turn(server, jobs[scenario])

    def _in_turn(self, server: Server, job: Callable[[], Awaitable[tuple[Figures, relay.Sent]]]) -> Figures:
        """One job on a fresh server, checked."""
        server.core = self._cores[0]
        with server:
            figures, sent = in_loop(job)
            self._run.oddities += [f"{server.name} logged: {line[:200]}" for line in server.complaints()[:3]]
            server.stop()
            if isinstance(server, KamaServer):
                before = full.MESSAGES_EACH if isinstance(server, FullNode) else 0
                check_store(server.database, sent, before)
        return figures


def progress(text: str) -> None:
    """How far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    progress("")
    print(f"benchmarks: {text}", file=sys.stderr)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 short round: enough to see that it works")
    parser.add_argument("--json", action="store_true", help="every figure of every round, as JSON")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="this scenario; may be given again")
    parser.add_argument(
        "--servers", action="append", choices=contestants.SERVERS, help="this server; may be given again"
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="measured of each load")
    parser.add_argument("--warm-up", type=float, help="seconds of load before")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=15_000, help="messages/s; at most half of the bare relay's peak")
    parser.add_argument("--members", type=int, default=100, help="of the group")
    parser.add_argument("--group-window", type=int, default=4, help="messages under way in the group")
    parser.add_argument("--connections", type=int, help="idle ones")
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
