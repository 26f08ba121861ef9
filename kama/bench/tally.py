"""Tally: what is counted while a run goes on, and the part of it that was measured."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

from kama.bench.latency import Histogram


@dataclass(frozen=True)
class Reading:
    """The counters at one moment. `wall` and `cpu` (this process's, all threads) in seconds."""

    wall: float
    cpu: float
    sent: int
    acked: int
    received: int
    logins: int


@dataclass
class Tally:
    """Counts from the first login on; `begin` and `end` mark what is measured: after the warm-up.

    `received`: messages shown to users other than their sender. `held_back`: messages that waited because a sender
    kept to the node's limit. `errors`: error frames by code. `dismissed`: users that the node sent away for good.
    """

    sent: int = 0
    acked: int = 0
    received: int = 0
    logins: int = 0
    failed_logins: int = 0
    reconnects: int = 0
    held_back: int = 0
    unsent: int = 0
    pulls: int = 0
    dismissed: int = 0
    users: int = 0
    phase: str = "logging in"
    close_codes: Counter[int] = field(default_factory=Counter)
    errors: Counter[int] = field(default_factory=Counter)
    accept: Histogram = field(default_factory=Histogram)
    receive: Histogram = field(default_factory=Histogram)
    login: Histogram = field(default_factory=Histogram)
    limits: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    zero: float = 0.0
    until: float = 0.0
    first: Reading | None = None
    last: Reading | None = None

    def start(self, warmup: float, duration: float) -> None:
        """The load begins now. Seconds."""
        self.zero = perf_counter() + warmup
        self.until = self.zero + duration
        self.phase = "warming up" if warmup else "measuring"

    def begin(self) -> None:
        self.phase = "measuring"
        self.first = self.read()

    def end(self) -> None:
        self.last = self.read()

    def read(self) -> Reading:
        return Reading(perf_counter(), time.process_time(), self.sent, self.acked, self.received, self.logins)

    def record(self, histogram: Histogram, due: float) -> None:
        """What was due at `due` (perf_counter's seconds) has happened now.

        Not counted when it was over before the measuring began, or due after its end. What was due before and comes
        within counts: under more load than the node can take, that is all there is.
        """
        now = perf_counter()
        if now >= self.zero and due < self.until:
            histogram.record(now - due)
