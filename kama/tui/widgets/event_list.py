"""EventList: what happens, newest first, one line each."""

from __future__ import annotations

from kama.monitor_protocol import FAILURES, Event
from kama.tui.cells import clock, milliseconds, size
from kama.tui.columns import Cell, Column
from kama.tui.look import Tone
from kama.tui.widgets.live_table import LiveTable

_TONES: dict[str, Tone] = {"closed": "dim", "opened": "dim", "action": "accent", "refused": "warn", "read": "good"}
_TYPES = ("text", "voice", "file", "av")


def type_name(type: int) -> str:
    return _TYPES[type] if 0 <= type < len(_TYPES) else str(type)


def _kind(event: Event, now_ms: int) -> Cell:
    return event.kind, _TONES.get(event.kind, "bad" if event.kind in FAILURES else "")


def describe(event: Event) -> str:
    """What happened, in a line; never a content, the node does not tell it."""
    match event.kind:
        case "accepted":
            return f"{event.send_id}→{event.receive_id} {type_name(event.type)} {size(event.size)}"
        case "produced":
            return f"{event.uuid} at {event.place}"
        case "stored":
            again = f" {event.text}" if event.text else ""
            return f"{event.conversation} #{event.seq} in {milliseconds(event.took_ms)} with {event.count}{again}"
        case "routed":
            told = f" told {event.text}" if event.text else ""
            return f"{event.uuid} to {event.members}, {event.online} online, queue {event.depth}{told}"
        case "written":
            return f"{event.uuid} to {event.user_id} after {milliseconds(event.took_ms)}"
        case "sent" | "delivered" | "read":
            return f"{event.conversation} #{event.seq} {event.user_id}"
        case "refused" | "closed":
            return f"{event.user_id} {event.code} {event.text}"
        case _:
            return " ".join(part for part in (event.user_id, event.uuid, event.text) if part)


def _text(event: Event, now_ms: int) -> Cell:
    return describe(event), "bad" if event.kind in FAILURES else ""


COLUMNS: tuple[Column[Event], ...] = (
    Column("time", "TIME", 12, lambda event, now_ms: (clock(event.at_ms, True), "dim"), priority=2),
    Column("kind", "EVENT", 9, _kind),
    Column("text", "WHAT", 20, _text, grow=1),
    Column("node", "NODE", 8, lambda event, now_ms: (event.node, "dim"), priority=4, align="tail"),
)


def _identity(event: Event) -> int:
    return id(event)


class EventList(LiveTable[Event]):
    """Rows are events; each is told apart by being itself."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(COLUMNS, _identity, header=False, newest_first=True, id=id)
