"""The frames of one connection: what a node may send is never flagged, what it must not send always is."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from kama.bench.frames import ConnectionFrames, FrameCounts

KEY = "U1_U2"


@dataclass
class Wire:
    """A node that keeps its promises, on one connection. Pushes go on beside a pull and its answer."""

    chance: random.Random
    last: int = 0
    frames: ConnectionFrames = field(default_factory=ConnectionFrames)
    asked: tuple[int, int] | None = None
    answer: list[int] | None = None
    answer_ends: int = 0

    def push(self) -> None:
        self.last += 1
        self.frames.message(KEY, self.last)

    def ask(self) -> None:
        if self.asked is None and self.answer is None:
            self.asked = (self.chance.randint(0, self.last), self.chance.randint(1, 5))
            self.frames.pull(KEY, *self.asked)

    def answer_on(self) -> None:
        if self.asked is not None:
            after, limit = self.asked
            self.asked, self.answer_ends = None, self.last
            self.answer = list(range(after + 1, min(self.last, after + limit) + 1))
        elif self.answer:
            self.frames.message(KEY, self.answer.pop(0))
        elif self.answer is not None:
            self.frames.pulled(KEY, self.answer_ends)
            self.answer = None

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.chance.choice((self.push, self.push, self.ask, self.answer_on, self.answer_on))()


@given(st.randoms(use_true_random=False), st.integers(0, 5), st.integers(0, 80))
def test_pushes_and_answers_to_pulls_in_any_mixture_are_fine(chance: random.Random, start: int, steps: int) -> None:
    wire = Wire(chance, last=start)
    wire.run(steps)
    counts = wire.frames.end()
    assert (counts.twice, counts.out_of_order) == (0, 0)


@given(st.randoms(use_true_random=False), st.integers(0, 5), st.integers(0, 80))
def test_what_is_pushed_again_beside_pulls_is_found(chance: random.Random, start: int, steps: int) -> None:
    wire = Wire(chance, last=start)
    wire.run(steps)
    while wire.asked is not None or wire.answer is not None:
        wire.answer_on()
    wire.push()
    wire.frames.message(KEY, wire.last)
    assert wire.frames.end().twice == 1


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.integers(1, 5))
def test_what_is_pushed_again_is_always_found(chance: random.Random, pushes: int, again: int) -> None:
    wire = Wire(chance)
    for _ in range(pushes):
        wire.push()
    for _ in range(again):
        wire.frames.message(KEY, chance.randint(1, pushes))
    assert wire.frames.end() == FrameCounts(twice=again)


@given(st.randoms(use_true_random=False), st.integers(2, 40))
def test_a_push_before_the_one_it_follows_is_always_found(chance: random.Random, pushes: int) -> None:
    seqs = list(range(1, pushes + 2))
    at = chance.randint(1, pushes - 1)
    seqs[at], seqs[at + 1] = seqs[at + 1], seqs[at]
    frames = ConnectionFrames()
    for seq in seqs:
        frames.message(KEY, seq)
    assert frames.end() == FrameCounts(out_of_order=1, skipped=1)


def test_a_push_twice_during_a_pull_is_found_when_the_answer_ends() -> None:
    frames = ConnectionFrames()
    frames.message(KEY, 1)
    frames.pull(KEY, 1, 5)
    for seq in (2, 2, 2):  # pushed, pulled, and once too often
        frames.message(KEY, seq)
    frames.pulled(KEY, 2)
    assert frames.end() == FrameCounts(twice=1, pulls=1)


def test_an_answer_that_the_end_cuts_off_is_an_answer() -> None:
    frames = ConnectionFrames()
    for seq in (1, 2, 3):
        frames.message(KEY, seq)
    frames.pull(KEY, 0, 200)
    frames.message(KEY, 1)
    assert frames.end() == FrameCounts(pulls=1)


def test_conversations_are_counted_apart() -> None:
    frames = ConnectionFrames()
    for key in ("U1_U2", "U1_U3", "G1"):
        frames.message(key, 1)
        frames.message(key, 2)
    assert frames.end() == FrameCounts()


def test_a_gap_between_pushes_is_told_and_no_fault() -> None:
    frames = ConnectionFrames()
    for seq in (4, 5, 9):
        frames.message(KEY, seq)
    assert frames.end() == FrameCounts(skipped=3)
