"""Lately: what was put in lately, and all of what must not be forgotten yet, at the cost of a dictionary."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_GENERATION = 10_000


class Lately(dict[K, V | None]):
    """The younger of two dictionaries. `lately[key]` looks into the older one as well, whose answer becomes young
    again; what is in neither is None. All else that a dictionary has is of the younger one alone.

    `turn_over` lets go of the older one, once it holds nothing that is still needed: whoever puts in says up to which
    position what is in there is needed, and then up to which nothing is needed any more.
    """

    __slots__ = ("_generation", "_old", "_old_until")

    def __init__(self, generation: int = _GENERATION) -> None:
        super().__init__()
        self._generation = generation
        self._old: dict[K, V | None] = {}
        self._old_until = 0

    def __missing__(self, key: K) -> V | None:
        found = self._old.get(key)
        if found is not None:
            self[key] = found
        return found

    def known(self, keys: Iterable[K]) -> list[K]:
        """Those of the keys that are in either."""
        old = self._old
        return [key for key in keys if key in self or key in old]

    def turn_over(self, until: int, done: int) -> None:
        """What is young is needed until position `until`; nothing before position `done` is needed any more."""
        if len(self) >= self._generation and self._old_until <= done:
            self._old, self._old_until = dict(self), until
            self.clear()
