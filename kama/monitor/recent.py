"""Recent: which events were seen already. A node begins each connection with its last ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from kama.monitor_protocol import Event

_KEPT = 2_000


class Recent:
    """`note` what was seen; after a reconnect `unseen` leaves out what comes again."""

    def __init__(self) -> None:
        self._keys: OrderedDict[tuple[object, ...], None] = OrderedDict()

    def note(self, events: Iterable[Event]) -> None:
        for event in events:
            self._keys[_key(event)] = None
        while len(self._keys) > _KEPT:
            self._keys.popitem(last=False)

    def unseen(self, events: Iterable[Event]) -> list[Event]:
        return [event for event in events if _key(event) not in self._keys]


def _key(event: Event) -> tuple[object, ...]:
    return event.node, event.at_ms, event.kind, event.uuid, event.user_id, event.connection, event.seq, event.text
