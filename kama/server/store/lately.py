"""Lately: what was put in lately, and all of what must not be forgotten yet, at the cost of a dictionary."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_GENERATION = 10_000


class Lately(Generic[K, V]):
    """Two dictionaries, a younger and an older one. What is asked for of the older one becomes young again.

    `turn_over` lets go of the older one, once it holds nothing that is still needed: whoever puts in says up to which
    position what is in there is needed, and then up to which nothing is needed any more.
    """

    def __init__(self, generation: int = _GENERATION) -> None:
        self._generation = generation
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self._old_until = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        found = self._young.get(key)
        if found is None and (found := self._old.get(key)) is not None:
            self._young[key] = found
        return found

    def put(self, key: K, value: V) -> None:
        self._young[key] = value

    def turn_over(self, until: int, done: int) -> None:
        """What is young is needed until position `until`; nothing before position `done` is needed any more."""
        if len(self._young) >= self._generation and self._old_until <= done:
            self._old, self._young, self._old_until = self._young, {}, until
