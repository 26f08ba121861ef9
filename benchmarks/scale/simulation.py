"""A discrete-event simulation in a few lines: processes that sleep, queue for servers, and wait for signals.

A process is a generator. It yields how many seconds to sleep, or a Signal to wait for.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Generator


class Signal:
    """Wakes whoever waits for it, once."""

    def __init__(self) -> None:
        self.waiting: list[Process] = []


Process = Generator[float | Signal, None, None]


class Simulation:
    """`now` is in seconds since the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Process]] = []
        self._turn = itertools.count()

    def start(self, process: Process, delay: float = 0.0) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._turn), process))

    def fire(self, signal: Signal) -> None:
        waiting, signal.waiting = signal.waiting, []
        for process in waiting:
            self.start(process)

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, process = heapq.heappop(self._due)
            wanted = next(process, None)
            if isinstance(wanted, Signal):
                wanted.waiting.append(process)
            elif wanted is not None:
                self.start(process, wanted)
        self.now = until


class Server:
    """So many workers that serve who comes, in order: `yield server.use(seconds)` is over once it was served.

    `speed`: below 1, everything takes longer.
    """

    def __init__(self, simulation: Simulation, workers: int, speed: float = 1.0) -> None:
        self._simulation = simulation
        self._free = [0.0] * workers
        self._speed = speed

    def use(self, seconds: float) -> float:
        """How long from now until that much work is done."""
        finish = max(self._simulation.now, heapq.heappop(self._free)) + seconds / self._speed
        heapq.heappush(self._free, finish)
        return finish - self._simulation.now


class Lock:
    """`yield from lock.take()`, then `lock.release()`. First come, first served."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._queue: list[Signal] = []
        self._held = False

    def take(self) -> Process:
        if self._held:
            turn = Signal()
            self._queue.append(turn)
            yield turn  # it is handed over, and stays held
        self._held = True

    def release(self) -> None:
        if self._queue:
            self._simulation.fire(self._queue.pop(0))
        else:
            self._held = False
