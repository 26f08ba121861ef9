"""The journal: what happened lately on this node, for whoever looks. The hot path appends a tuple and goes on.

An entry is (Unix nanoseconds, kind, uuid or 0, and the kind's own values): scalars only, so that nothing is kept
alive by it and the garbage collector passes it by. It becomes an Event when somebody looks. Failures, and what
people did, are kept in a ring of their own as well, where a flood of the ordinary does not push them out.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from kama.monitor_protocol import NEVER_SAMPLED, Event, EventKind
from kama.server.traffic import Traffic

_RING = 20_000
_RARE = 2_000
_WORD = (1 << 64) - 1

Entry = tuple[Any, ...]


class _Place(Protocol):
    """Where a message ended, as `broker.Stored` says it."""

    conversation: str
    seq: int
    duplicate: bool


class _Change(Protocol):
    """A message whose status rose, as `store.progress.StatusChange` says it."""

    @property
    def uuid(self) -> int: ...

    @property
    def conversation(self) -> str: ...

    @property
    def seq(self) -> int: ...

    @property
    def user_id(self) -> str: ...


_VALUES: Mapping[EventKind, tuple[str, ...]] = {
    "accepted": ("conversation", "send_id", "receive_id", "type", "size", "connection"),
    "produced": ("place",),
    "stored": ("conversation", "seq", "count", "took_ms", "text"),
    "routed": ("conversation", "seq", "members", "online", "depth", "text"),
    "written": ("user_id", "connection", "took_ms"),
    "sent": ("conversation", "seq", "user_id"),
    "delivered": ("conversation", "seq", "user_id"),
    "read": ("conversation", "seq", "user_id"),
    "refused": ("user_id", "connection", "code", "text"),
    "dropped": ("user_id", "connection", "text"),
    "not_stored": ("conversation", "text"),
    "undeliverable": ("receive_id",),
    "opened": ("user_id", "connection", "text"),
    "closed": ("user_id", "connection", "code", "text"),
    "action": ("user_id", "text"),
    "alert": ("text",),
}


class Journal:
    """Handed to all parts of a node. `count` events were noted so far; `traffic` has the node's sums."""

    def __init__(self, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._ring: deque[Entry] = deque(maxlen=_RING)
        self._rare: deque[tuple[int, Entry]] = deque(maxlen=_RARE)
        self._append = self._ring.append
        self._started_ns = clock_ns()
        self.count = 0
        self.traffic = Traffic()

    # --- what the parts of a node note

    def accepted(
        self, uuid: int, conversation: str, send_id: str, receive_id: str, kind: int, size: int, connection: str
    ) -> None:
        self.count += 1
        self._append((self._clock_ns(), "accepted", uuid, conversation, send_id, receive_id, kind, size, connection))

    def produced(self, uuid: int, topic: str, partition: int, offset: int) -> None:
        self.count += 1
        self._append((self._clock_ns(), "produced", uuid, f"{topic}/{partition}/{offset}"))

    def stored(self, batch: Collection[tuple[int, _Place]], took_ms: float) -> None:
        """One transaction: the ids of its messages, and where each ended."""
        now, count = self._clock_ns(), len(batch)
        self.count += count
        self._ring.extend(
            [
                (now, "stored", uuid, at.conversation, at.seq, count, took_ms, "duplicate" if at.duplicate else "")
                for uuid, at in batch
            ]
        )

    def routed(
        self, uuid: int, conversation: str, seq: int, members: int, online: int = 0, depth: int = 0, text: str = ""
    ) -> None:
        self.count += 1
        self._append((self._clock_ns(), "routed", uuid, conversation, seq, members, online, depth, text))

    def written(self, uuid: int, user_id: str, connection: str, accepted_ms: int, live: bool) -> None:
        """`live`: it was not read back from the store first."""
        now = self._clock_ns()
        took = now / 1_000_000 - accepted_ms
        if took < 0.0:
            took = 0.0
        entry = (now, "written", uuid, user_id, connection, took)
        if live:
            self.traffic.written_live.append(entry)
        self.count += 1
        self._append(entry)

    def risen(self, status: EventKind, changes: Collection[_Change]) -> None:
        """One status of some messages was committed: sent, delivered or read."""
        now = self._clock_ns()
        self.count += len(changes)
        self._ring.extend(
            [(now, status, change.uuid, change.conversation, change.seq, change.user_id) for change in changes]
        )

    def refused(self, user_id: str, connection: str, code: int, text: str) -> None:
        self._add_rare((self._clock_ns(), "refused", 0, user_id, connection, int(code), text))

    def dropped(self, user_id: str, connection: str, text: str) -> None:
        self._add_rare((self._clock_ns(), "dropped", 0, user_id, connection, text))

    def not_stored(self, uuid: int, conversation: str, text: str) -> None:
        self._add_rare((self._clock_ns(), "not_stored", uuid, conversation, text))

    def undeliverable(self, uuid: int, receive_id: str) -> None:
        self._add_rare((self._clock_ns(), "undeliverable", uuid, receive_id))

    def opened(self, user_id: str, connection: str, address: str) -> None:
        self._add((self._clock_ns(), "opened", 0, user_id, connection, address))

    def closed(self, user_id: str, connection: str, code: int, reason: str) -> None:
        self._add((self._clock_ns(), "closed", 0, user_id, connection, int(code), reason))

    def action(self, user_id: str, text: str) -> None:
        self._add_rare((self._clock_ns(), "action", 0, user_id, text))

    def alert(self, text: str) -> None:
        self._add_rare((self._clock_ns(), "alert", 0, text))

    def _add(self, entry: Entry) -> None:
        self.count += 1
        self._append(entry)

    def _add_rare(self, entry: Entry) -> None:
        self._add(entry)
        self._rare.append((self.count, entry))

    # --- what others read

    @property
    def kept_since_ms(self) -> int:
        """What happened before is not kept, failures apart."""
        since: int = self._ring[0][0] if self.count > len(self._ring) else self._started_ns
        return since // 1_000_000

    def since(self, count: int) -> tuple[list[Entry], int]:
        """What was noted after the first `count` events, oldest first, and how many of it are lost."""
        new = self.count - count
        kept = min(new, len(self._ring))
        entries = list(islice(reversed(self._ring), kept))
        entries.reverse()
        if new == kept:
            return entries, 0
        first = self.count - kept
        saved = [entry for number, entry in self._rare if count < number <= first]
        return saved + entries, new - kept - len(saved)

    def of_message(self, uuid: int) -> list[Entry]:
        """What is kept of one message, oldest first."""
        return [entry for entry in self.since(0)[0] if entry[2] == uuid]


def build_event(entry: Entry, node: str) -> Event:
    at_ns, kind, uuid, *values = entry
    readable = (round(value, 2) if isinstance(value, float) else value for value in values)
    named: dict[str, Any] = dict(zip(_VALUES[kind], readable, strict=True))
    return Event(at_ms=at_ns // 1_000_000, kind=kind, node=node, uuid=str(uuid) if uuid else "", **named)


def sample(
    entries: Sequence[Any], most: int, is_failure: Callable[[Any], bool], subject: Callable[[Any], int]
) -> list[Any]:
    """At most `most` of them, in their order; failures come on top, all of them.

    What has one `subject` is chosen together, in one call and the next, so that a message that is shown is shown from
    its beginning to its end. The share of subjects goes by powers of two: it stays the same while the load does.
    """
    ordinary = sum(not is_failure(entry) for entry in entries)
    if ordinary <= most:
        return list(entries)
    share = 2.0 ** math.floor(math.log2(most / ordinary)) if most else 0.0
    chosen = [entry for entry in entries if is_failure(entry) or _place(subject(entry)) < share]
    return _thin(chosen, most, is_failure)


def _place(subject: int) -> float:
    """Somewhere from 0 to 1, always the same for the same subject: Fibonacci hashing (Knuth, volume 3, 6.4)."""
    return ((subject * 0x9E3779B97F4A7C15) & _WORD) / (_WORD + 1)


def _thin(entries: list[Any], most: int, is_failure: Callable[[Any], bool]) -> list[Any]:
    """At most `most`, spread evenly, where the subjects chosen have more to tell than others."""
    ordinary = sum(not is_failure(entry) for entry in entries)
    if ordinary <= most:
        return entries
    thinned: list[Any] = []
    seen = 0
    for entry in entries:
        if is_failure(entry):
            thinned.append(entry)
            continue
        # The n-th of `ordinary` is taken where n * most / ordinary passes a whole number.
        if (seen + 1) * most // ordinary > seen * most // ordinary:
            thinned.append(entry)
        seen += 1
    return thinned


def is_never_sampled_entry(entry: Entry) -> bool:
    return entry[1] in NEVER_SAMPLED


def subject_of_entry(entry: Entry) -> int:
    """The message, or whoever it is about."""
    return entry[2] or hash(entry[3])


def subject_of_event(event: Event) -> int:
    return int(event.uuid) if event.uuid else hash(event.user_id)


def is_never_sampled_event(event: Event) -> bool:
    return event.kind in NEVER_SAMPLED
