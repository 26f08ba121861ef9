"""Logbook: what a person has to know of the last hours: faults, actions, and what became of the links."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from kama.monitor.link import Link, LinkState
from kama.monitor_protocol import FAILURES, Event
from kama.tui.link_words import name_of
from kama.tui.look import Tone

ENTRIES_MAX = 1_000
# Entries this far back still count the same thing up.
_LOOK_BACK = 20


@dataclass(slots=True)
class Entry:
    """`count` times the same, from `first_ms` to `at_ms`."""

    number: int
    first_ms: int
    at_ms: int
    kind: str
    node: str
    text: str
    tone: Tone
    count: int = 1


class Logbook:
    """Newest last. What repeats is counted, not repeated."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque(maxlen=ENTRIES_MAX)
        self._links: dict[str, LinkState] = {}
        self._number = 0

    def take_event(self, event: Event) -> None:
        if event.kind in FAILURES:
            self.note(event.at_ms, event.kind, event.node, _what(event), "bad" if event.kind != "refused" else "warn")
        elif event.kind == "action":
            self.note(event.at_ms, event.kind, event.node, _what(event), "accent")

    def take_link(self, source: str, link: Link, now_ms: int) -> None:
        if self._links.get(source) is link.state:
            return
        self._links[source] = link.state
        word, tone = name_of(link.state)
        self.note(now_ms, "link", source, f"{word[2:].lower()}{f': {link.cause}' if link.cause else ''}", tone)

    def note(self, at_ms: int, kind: str, node: str, text: str, tone: Tone) -> None:
        for entry in list(self.entries)[-_LOOK_BACK:]:
            if (entry.kind, entry.node, entry.text) == (kind, node, text) and kind != "link":
                entry.count += 1
                entry.at_ms = max(entry.at_ms, at_ms)
                return
        self._number += 1
        self.entries.append(Entry(self._number, at_ms, at_ms, kind, node, text, tone))


def _what(event: Event) -> str:
    whose = f"{event.user_id} " if event.user_id else ""
    code = f"{event.code} " if event.code else ""
    about = f" ({event.uuid})" if event.uuid and not event.user_id else ""
    return f"{whose}{code}{event.text}{about}".strip() or event.kind
