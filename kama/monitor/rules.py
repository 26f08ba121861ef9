"""Judge: what the findings of many moments add up to. A verdict neither flickers nor comes late: a trouble counts
once it has held for as long as its rule says, and ends when it was not seen for some seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from kama.monitor.findings import RULES, Finding, Level, Screen
from kama.monitor.store import MonitorStore

CLEAR_MS = 3_000
LAG_LEAST = 100
_LAG_SAMPLES = 6
_LAG_EVERY_MS = 2_000
_CAUSES_MAX = 500


@dataclass(frozen=True, slots=True)
class Cause:
    """A trouble since `since_ms` (by the clock of who watches). `screen` shows more of `subject`."""

    text: str
    since_ms: int
    screen: Screen
    subject: str
    level: Level


@dataclass(frozen=True, slots=True)
class Verdict:
    """`causes`: worst first, and of those the older first."""

    level: Level
    causes: tuple[Cause, ...] = ()

    @property
    def since_ms(self) -> int | None:
        """When the first of the worst began; all well: None."""
        return self.causes[0].since_ms if self.causes else None


@dataclass(slots=True)
class _Seen:
    finding: Finding
    first_ms: int
    last_ms: int
    counts: bool = False


class Judge:
    """Give it the store now and then, with the time in Unix milliseconds. `patient` false: what is found counts at
    once, for who looks only one time."""

    def __init__(self, *, patient: bool = True) -> None:
        self._is_patient = patient
        self._seen: dict[str, _Seen] = {}
        self._lags: deque[tuple[int, int]] = deque(maxlen=_LAG_SAMPLES)

    def verdict(self, store: MonitorStore, now_ms: int) -> Verdict:
        for rule in RULES:
            for finding in rule(store, now_ms):
                self._note(finding, now_ms)
        if lag := self._lag_rising(store, now_ms):
            self._note(lag, now_ms)
        self._forget(now_ms)
        causes = [self._cause(seen) for seen in self._seen.values() if seen.counts]
        causes.sort(key=lambda cause: (-cause.level, cause.since_ms))
        return Verdict(max((cause.level for cause in causes), default=Level.OK), tuple(causes))

    def _note(self, finding: Finding, now_ms: int) -> None:
        seen = self._seen.get(finding.key)
        if seen is None:
            if len(self._seen) >= _CAUSES_MAX:
                return
            seen = self._seen[finding.key] = _Seen(finding, now_ms, now_ms)
        seen.finding, seen.last_ms = finding, now_ms
        seen.counts = seen.counts or not self._is_patient or now_ms - seen.first_ms >= finding.hold_ms

    def _forget(self, now_ms: int) -> None:
        """What has not counted yet starts anew when it pauses; what counts has to stay away."""
        for key, seen in list(self._seen.items()):
            away_ms = now_ms - seen.last_ms
            if away_ms < 0 or (away_ms >= CLEAR_MS if seen.counts else away_ms > 0):
                del self._seen[key]

    def _cause(self, seen: _Seen) -> Cause:
        finding = seen.finding
        return Cause(finding.text, seen.first_ms, finding.screen, finding.subject, finding.level)

    def _lag_rising(self, store: MonitorStore, now_ms: int) -> Finding | None:
        """Records that wait in Kafka, on all nodes together. Nodes do not keep a history of it, so this does."""
        lag = sum(partition.lag for node in store.nodes.values() for partition in node.partitions)
        if self._lags and now_ms < self._lags[-1][0]:
            self._lags.clear()
        if not self._lags or now_ms - self._lags[-1][0] >= _LAG_EVERY_MS:
            self._lags.append((now_ms, lag))
        lags = [each for _, each in self._lags]
        is_rising = len(lags) == _LAG_SAMPLES and all(one <= two for one, two in zip(lags, lags[1:], strict=False))
        if is_rising and lags[-1] - lags[0] >= LAG_LEAST:
            return Finding("lag", f"{lag} records wait in Kafka, rising", screen="queues")
        return None
