"""Timeline: what several nodes know of one message, as one story with its gaps and its slowest step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kama.monitor_protocol import Event, EventKind, MessageTrace
from kama.protocol import MessageStatus, is_group_id

# The order in which the walk goes, for steps of the same millisecond.
_WALK: tuple[EventKind, ...] = (
    "accepted", "produced", "stored", "routed", "written", "sent", "delivered", "read",
)  # fmt: skip
_DOING: dict[EventKind, str] = {
    "produced": "producing", "stored": "storing", "routed": "routing", "written": "writing to the receiver",
    "sent": "noting that it was sent", "delivered": "the receiver's device", "read": "the reader",
}  # fmt: skip
# How long these take is up to people, not to a node.
_HUMAN = frozenset({"delivered", "read"})
_FAILED = frozenset({"not_stored", "undeliverable"})
_REACHED = frozenset({"written", "sent", "delivered", "read"})
_ENDS: tuple[tuple[str, tuple[EventKind, ...]], ...] = (
    ("delivered", ("delivered", "read")),
    ("sent", ("written", "sent")),
)


@dataclass(frozen=True, slots=True)
class Step:
    """`delta_ms` since the step before; none for the first. `is_slowest` for one of them at most."""

    event: Event
    delta_ms: int | None
    is_slowest: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """`status` none: the store has no such message. `missing`: steps that did not come, and why, as far as is known."""

    uuid: str
    conversation: str
    seq: int
    send_id: str
    receive_id: str
    type: int
    size: int
    created_ms: int
    status: MessageStatus | None
    steps: tuple[Step, ...]
    missing: tuple[str, ...]
    sentence: str

    @property
    def is_known(self) -> bool:
        """Whether anybody knows of this message."""
        return bool(self.steps) or self.status is not None


def timeline(traces: Sequence[MessageTrace]) -> Timeline:
    """Merge what nodes know of a message, one trace each. Raises ValueError for none, or for several messages."""
    uuids = {trace.uuid for trace in traces}
    if len(uuids) != 1:
        raise ValueError(f"expected traces of one message, got {len(uuids)}")
    events = _merged(traces)
    accepted = next((event for event in events if event.kind == "accepted"), Event(at_ms=0, kind="accepted"))
    stored = next((trace for trace in traces if trace.status is not None), traces[0])
    statuses = [trace.status for trace in traces if trace.status is not None]
    status = MessageStatus(min(max(statuses), MessageStatus.READ)) if statuses else None
    steps = _steps(events)
    return Timeline(
        uuid=stored.uuid,
        conversation=stored.conversation or accepted.conversation,
        seq=stored.seq or max((event.seq for event in events), default=0),
        send_id=stored.send_id or accepted.send_id,
        receive_id=stored.receive_id or accepted.receive_id,
        type=stored.type or accepted.type,
        size=stored.size or accepted.size,
        created_ms=stored.created_ms or accepted.at_ms,
        status=status,
        steps=steps,
        missing=_missing(events, status, any(trace.evicted for trace in traces)),
        sentence=_sentence(steps, status, stored.receive_id or accepted.receive_id),
    )


def _merged(traces: Sequence[MessageTrace]) -> list[Event]:
    """In time, in the walk's order where the time is the same; each once. Nodes tell of their own steps only."""
    once = {msgspec.json.encode(event): event for trace in traces for event in trace.steps}
    return sorted(once.values(), key=lambda event: (event.at_ms, _place(event.kind)))


def _place(kind: EventKind) -> int:
    return _WALK.index(kind) if kind in _WALK else len(_WALK)


def _steps(events: Sequence[Event]) -> tuple[Step, ...]:
    deltas = [None, *(two.at_ms - one.at_ms for one, two in zip(events, events[1:], strict=False))]
    timed = [
        (delta, at)
        for at, (event, delta) in enumerate(zip(events, deltas, strict=False))
        if delta and event.kind not in _HUMAN
    ]
    slowest = max(timed, key=lambda each: each[0])[1] if timed else None
    return tuple(
        Step(event, delta, at == slowest) for at, (event, delta) in enumerate(zip(events, deltas, strict=False))
    )


# --- in words ------------------------------------------------------------------------------------------


def _missing(events: Sequence[Event], status: MessageStatus | None, is_evicted: bool) -> tuple[str, ...]:
    kinds = {event.kind for event in events}
    if kinds & _FAILED:
        return ()
    if not events:
        return ("its steps are not kept any more" if is_evicted else "no step is known here",)
    words = ["its first steps are not kept any more"] if is_evicted else []
    is_written = bool(kinds & _REACHED) or (status or 0) >= MessageStatus.SENT
    if "stored" not in kinds and "routed" not in kinds and status is None:
        words.append("not stored yet")
    if is_written:
        return tuple(words)
    if "routed" not in kinds:
        words.append("not routed yet")
    elif online := sum(event.online for event in events):
        offered = "1 connection was" if online == 1 else f"{online} connections were"
        words.append(f"no receiver has taken it yet: {offered} offered it, the sender's own may be among them")
    else:
        words.append("nobody who gets it is connected")
    return tuple(words)


def _sentence(steps: Sequence[Step], status: MessageStatus | None, receive_id: str) -> str:
    events = [step.event for step in steps]
    if not steps:
        return f"stored, {status.name.lower()}" if status is not None else "nobody knows of this message"
    if failed := next((event for event in events if event.kind in _FAILED), None):
        words = "not stored" if failed.kind == "not_stored" else "a call signal that reached nobody"
        return f"{words}{f': {failed.text}' if failed.text else ''}"
    words, end = _end(events, status, receive_id)
    if len(steps) > 1:
        words += f" in {end.at_ms - events[0].at_ms} ms"
    slowest = next((step for step in steps if step.is_slowest), None)
    if slowest is not None:
        when = "slowest, after that" if slowest.event.at_ms > end.at_ms else "slowest"
        words += f"; {when}: {_DOING.get(slowest.event.kind, slowest.event.kind)} {slowest.delta_ms} ms"
    return words


def _end(events: Sequence[Event], status: MessageStatus | None, receive_id: str) -> tuple[str, Event]:
    """How far it came, in words, and the event that tells it."""
    first = {event.kind: event for event in reversed(events)}
    for verb, kinds in _ENDS:
        for kind in kinds:
            if kind in first:
                return f"{verb} {_to_how_many(events, receive_id)}", first[kind]
    if status is not None and status >= MessageStatus.SENT:
        return f"{status.name.lower()} {_to_how_many(events, receive_id)}", events[-1]
    if status is not None or "stored" in first:
        return "stored, and sent to nobody yet", events[-1]
    return "accepted, and not stored yet", events[-1]


def _to_how_many(events: Sequence[Event], receive_id: str) -> str:
    """A group's message counts as sent when its first receiver has it: of the others nothing is known."""
    if not is_group_id(receive_id):
        return "to 1 of 1"
    members = max((event.members for event in events if event.kind == "routed"), default=0)
    reached = max(1, len({event.user_id for event in events if event.kind in _REACHED}))
    return f"to at least {reached} of {members - 1}" if members > 1 else f"to at least {reached}"


def describe(event: Event) -> str:
    """What an event says besides its kind, in words; not sanitised."""
    match event.kind:
        case "accepted":
            to = f"{event.send_id} to {event.receive_id}"
            return f"{to}, {event.size} B" if event.size else to
        case "produced":
            return event.place
        case "stored":
            batch = f", one of {event.count}" if event.count > 1 else ""
            again = f" ({event.text})" if event.text else ""
            return f"seq {event.seq}, in {event.took_ms:.1f} ms{batch}{again}"
        case "routed":
            others = f", told to {event.text}" if event.text else ""
            queue = f", deepest queue {event.depth}" if event.depth else ""
            return f"for {event.members} users, offered to {event.online} connections here{queue}{others}"
        case "written":
            return f"to {event.user_id}, {event.took_ms:.1f} ms after it was accepted"
        case "sent" | "delivered" | "read":
            return f"{event.user_id} has {event.conversation} up to {event.seq}"
        case "opened" | "closed" | "refused" | "dropped":
            code = f" {event.code}" if event.code else ""
            return f"{event.user_id}{code} {event.text}".strip()
        case "action":
            return f"{event.user_id}: {event.text}"
        case _:
            return event.text
