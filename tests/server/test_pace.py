"""How often a watcher gets a frame: as asked, less while it owes acks, and back again."""

from __future__ import annotations

from kama.server.watch.pace import Pace


class Pacing:
    def __init__(self, wanted_ms: int = 250) -> None:
        self.now = 100.0
        self.seq = 0
        self.pace = Pace(wanted_ms)

    def run(self, seconds: float, ack_after: float | None = None) -> int:
        """Frames go out for a while, and are acked that much later, or never. Gives the interval at the end."""
        owed: list[tuple[float, int]] = []
        end = self.now + seconds
        while self.now < end:
            self.pace.look(self.now)
            self.seq += 1
            self.pace.sent(self.seq, self.now)
            if ack_after is not None:
                owed.append((self.now + ack_after, self.seq))
            self.now += self.pace.interval_ms / 1000
            while owed and owed[0][0] <= self.now:
                at, seq = owed.pop(0)
                self.pace.acked(seq, at)
        return self.pace.interval_ms


def test_who_acks_in_time_keeps_its_interval() -> None:
    assert Pacing().run(30, ack_after=0.1) == 250


def test_an_ack_that_takes_two_intervals_is_in_time() -> None:
    assert Pacing().run(30, ack_after=0.6) == 250


def test_who_never_acks_ends_with_a_frame_every_two_seconds() -> None:
    assert Pacing().run(30) == 2000


def test_it_slows_by_halves() -> None:
    pacing = Pacing()
    seen = {pacing.run(0.25) for _ in range(40)}
    assert seen == {250, 500, 1000, 2000}


def test_acks_in_time_bring_it_back() -> None:
    pacing = Pacing()
    pacing.run(30)
    assert pacing.run(30, ack_after=0.1) == 250


def test_who_asks_for_less_than_a_frame_every_two_seconds_gets_no_more_and_no_less() -> None:
    assert Pacing(wanted_ms=5000).run(60) == 5000


def test_asking_anew_begins_anew() -> None:
    pacing = Pacing()
    pacing.run(30)
    pacing.pace.want(300)
    assert pacing.run(1) == 300
