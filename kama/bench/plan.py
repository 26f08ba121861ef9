"""Plan: what a run is to do, and the made-up users and groups that do it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from kama.protocol import conversation_id

Pattern = Literal["relay", "fanout", "connect"]
# A user's id, and whether the token is for an operator: a token.
Issue = Callable[[str, bool], str]

MESSAGE_SIZE_MIN, MESSAGE_SIZE_MAX = 48, 1 << 20
PAIRS_MAX, GROUPS_MAX, GROUP_SIZE_MAX = 50_000, 999, 9_999
_RUN_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _new_run() -> str:
    return "".join(secrets.choice(_RUN_CHARACTERS) for _ in range(6))


@dataclass(frozen=True)
class Seat:
    """A made-up user and the node that it logs in at."""

    user_id: str
    node: str


@dataclass(frozen=True)
class Talk:
    """A conversation: `senders` take turns to write to `receive_id`, all `members` are shown it."""

    conversation: str
    receive_id: str
    senders: tuple[Seat, ...]
    members: tuple[Seat, ...]


@dataclass(frozen=True)
class Plan:
    """Durations in seconds, `rate` in messages (or logins) a second in total; None: as fast as answers come.

    `window`: messages of one conversation under way at most. `settle`: how long the end waits for what is under way.
    `run` makes the ids of users and groups new in each run.
    """

    nodes: tuple[str, ...]
    pattern: Pattern = "relay"
    pairs: int = 50
    groups: int = 0
    group_size: int = 10
    message_size: int = 200
    rate: float | None = None
    window: int = 4
    duration: float = 10.0
    warmup: float = 1.0
    settle: float = 30.0
    verify: bool = False
    run: str = field(default_factory=_new_run)

    def talks(self) -> list[Talk]:
        """The conversations; for `connect`, the pairs whose users log in."""
        return self._group_talks() if self.pattern == "fanout" else self._pair_talks()

    def seats(self) -> list[Seat]:
        return [seat for talk in self.talks() for seat in talk.members]

    def token_ttl(self) -> float:
        """Seconds for which a token made at the start has to be good, with time to spare."""
        return self.warmup + self.duration + 2 * self.settle + 600

    def _node(self, number: int) -> str:
        return self.nodes[number % len(self.nodes)]

    def _pair_talks(self) -> list[Talk]:
        talks = []
        for number in range(self.pairs):
            sender = Seat(f"Ub{self.run}s{number}", self._node(number))
            receiver = Seat(f"Ub{self.run}r{number}", self._node(number + 1))
            key = conversation_id(sender.user_id, receiver.user_id)
            talks.append(Talk(key, receiver.user_id, (sender,), (sender, receiver)))
        return talks

    def _group_talks(self) -> list[Talk]:
        talks = []
        for number in range(max(1, self.groups)):
            members = tuple(
                Seat(f"Ub{self.run}g{number}m{member}", self._node(number + member))
                for member in range(self.group_size)
            )
            group_id = f"Gb{self.run}g{number}"
            talks.append(Talk(group_id, group_id, members, members))
        return talks


class Stamp:
    """The content of a run's messages: which one it is, and when it was due, in microseconds since `zero`."""

    def __init__(self, run: str, size: int) -> None:
        self._prefix = f"{run}:"
        self._size = size

    def write(self, message: int, due_us: int) -> str:
        return f"{self._prefix}{message}:{due_us}:".ljust(self._size, "x")

    def read(self, content: str) -> tuple[int, int] | None:
        """The message and when it was due; None for what is not of this run."""
        if not content.startswith(self._prefix):
            return None
        try:
            _, message, due_us, _ = content.split(":", 3)
            return int(message), int(due_us)
        except ValueError:
            return None
