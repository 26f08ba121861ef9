"""Result: what a run found, as one JSON object with names that stay, and as a table for people."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from kama import __version__
from kama.bench.ledger import Verdict
from kama.bench.plan import Plan
from kama.bench.tally import Reading, Tally
from kama.bench.transport import fastest_client, loop_name
from kama.errors import Code
from kama.protocol import PROTOCOL_VERSION

_BUSY_CPU = 0.9
_COUNTED = ("sent", "acked", "received", "logins")


@dataclass(frozen=True)
class Result:
    """`verdict`: None when there was no ledger, or when the run did not come to its end (`interrupted`)."""

    plan: Plan
    tally: Tally
    verdict: Verdict | None = None
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Latencies in milliseconds, durations in seconds, `cpu` in cores."""
        tally = self.tally
        return {
            "pattern": self.plan.pattern,
            "interrupted": self.interrupted,
            "conditions": self._conditions(),
            "measured_seconds": round(self._measured, 3),
            "sent": tally.sent,
            "acked": tally.acked,
            "unacked": tally.sent - tally.acked,
            "unsent": tally.unsent,
            "received": tally.received,
            "logins": tally.logins,
            "failed_logins": tally.failed_logins,
            "per_second": self._per_second(),
            "latency_ms": {
                "accept": tally.accept.as_ms(),
                "receive": tally.receive.as_ms(),
                "login": tally.login.as_ms(),
            },
            "reconnects": tally.reconnects,
            "dismissed": tally.dismissed,
            "close_codes": {str(code): count for code, count in sorted(tally.close_codes.items())},
            "errors": {str(code): count for code, count in sorted(tally.errors.items())},
            "rate_limited": tally.errors[Code.RATE_LIMITED],
            "held_back": tally.held_back,
            "pulls": tally.pulls,
            "cpu": round(self.cpu, 3),
            "verify": self._verdict(),
            "warnings": self.warnings(),
        }

    def _conditions(self) -> dict[str, Any]:
        plan = self.plan
        is_fanout = plan.pattern == "fanout"
        return {
            "nodes": list(plan.nodes),
            "users": self.tally.users,
            "pairs": 0 if is_fanout else plan.pairs,
            "groups": max(1, plan.groups) if is_fanout else 0,
            "group_size": plan.group_size if is_fanout else 0,
            "message_size": plan.message_size,
            "rate": plan.rate,
            "window": plan.window,
            "duration": plan.duration,
            "warmup": plan.warmup,
            "verify": plan.verify,
            "run": plan.run,
            "node_limits": self.tally.limits,
            "versions": {"kama": __version__, "python": platform.python_version(), "protocol": PROTOCOL_VERSION},
            "cores": os.cpu_count(),
            "transport": fastest_client().transport,
            "loop": loop_name(),
        }

    # --- what was measured

    @property
    def _span(self) -> tuple[Reading, Reading] | None:
        first = self.tally.first
        return None if first is None else (first, self.tally.last or self.tally.read())

    @property
    def _measured(self) -> float:
        span = self._span
        return span[1].wall - span[0].wall if span else 0.0

    @property
    def cpu(self) -> float:
        """Cores that this process took while it was measured."""
        span = self._span
        return (span[1].cpu - span[0].cpu) / self._measured if span and self._measured else 0.0

    def _per_second(self) -> dict[str, float]:
        span = self._span
        if span is None or not self._measured:
            return dict.fromkeys(_COUNTED, 0.0)
        first, last = span
        return {name: round((getattr(last, name) - getattr(first, name)) / self._measured, 1) for name in _COUNTED}

    def _verdict(self) -> dict[str, Any] | None:
        verdict = self.verdict
        if verdict is None:
            return None
        sums = {"lost": verdict.lost, "duplicated": verdict.duplicated, "reordered": verdict.reordered}
        return {"ok": verdict.ok, **sums, **asdict(verdict)}

    # --- what to know about it

    def warnings(self) -> list[str]:
        """Why the figures may not be the node's."""
        tally, limits = self.tally, self.tally.limits
        told = list(tally.warnings)
        if self.interrupted:
            told.append("the run did not come to its end: this is what there was by then, and nothing is verified")
        if tally.held_back or tally.errors[Code.RATE_LIMITED]:
            told.append(
                f"the node's limits.messages_per_second ({limits.get('messages_per_second', 0):g} for each user, "
                f"burst {limits.get('burst', 0):g}) bounds this run: {tally.held_back} messages were held back, "
                f"{tally.errors[Code.RATE_LIMITED]} refused for a while. KAMA_LIMITS__MESSAGES_PER_SECOND=0 lifts it"
            )
        if self.cpu > _BUSY_CPU:
            told.append(
                f"this client is the limit: it took {self.cpu:.0%} of a core, so the node may do more than these "
                "figures. Give it a --rate below, or run several side by side"
            )
        if tally.unsent:
            what = "logins" if self.plan.pattern == "connect" else "messages"
            told.append(f"{tally.unsent} {what} were due and never sent: --rate is more than could be done")
        if tally.dismissed:
            told.append(f"users that the node sent away for good, and that nothing waits for: {tally.dismissed}")
        return told

    # --- for people

    def rows(self) -> list[tuple[str, ...]]:
        """A table; the first column names."""
        rates, tally = self._per_second(), self.tally
        rows: list[tuple[str, ...]] = [("", "COUNT", "PER SECOND")]
        if self.plan.pattern == "connect":
            rows += [("logins", str(tally.logins), f"{rates['logins']:.1f}"), ("failed", str(tally.failed_logins))]
            latencies = {"login": tally.login}
        else:
            rows += [(name, str(getattr(tally, name)), f"{rates[name]:.1f}") for name in ("sent", "acked", "received")]
            latencies = {"accept": tally.accept, "receive": tally.receive}
        rows += [("",), ("LATENCY ms", "p50", "p90", "p99", "p99.9", "max")]
        for name, histogram in latencies.items():
            values = list(histogram.as_ms().values())[1:]
            rows.append((name, *("-" if value is None else f"{value:.2f}" for value in values)))
        rows += [("",), *self._facts()]
        width = max(map(len, rows))
        return [row + ("",) * (width - len(row)) for row in rows]

    def _facts(self) -> list[tuple[str, str]]:
        tally = self.tally
        codes = " ".join(f"{code}:{count}" for code, count in sorted(tally.close_codes.items()))
        facts = [
            ("reconnects", f"{tally.reconnects}{f' ({codes})' if codes else ''}"),
            ("own cpu", f"{self.cpu:.0%} of a core ({fastest_client().transport}, {loop_name()})"),
        ]
        if self.verdict is not None:
            verdict = self.verdict
            facts += [("lost", str(verdict.lost)), ("duplicated", str(verdict.duplicated))]
            facts += [("reordered", str(verdict.reordered)), ("unacked", str(verdict.unacked))]
        return facts
