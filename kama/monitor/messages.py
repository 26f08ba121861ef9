"""Messages: the last messages, each with how far it has come, put together from events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from kama.monitor_protocol import FAILURES, Event, EventKind

MESSAGES_MAX = 5_000

MessageState = Literal["accepted", "stored", "sent", "delivered", "read", "failed"]
_STATES: dict[EventKind, MessageState] = {
    "accepted": "accepted", "produced": "accepted",
    "stored": "stored", "routed": "stored", "written": "stored",
    "sent": "sent", "delivered": "delivered", "read": "read",
    "not_stored": "failed", "undeliverable": "failed",
}  # fmt: skip
_ORDER: tuple[MessageState, ...] = ("accepted", "stored", "sent", "delivered", "read", "failed")


@dataclass(slots=True)
class Message:
    """A message as far as its events are known. `times`: when each kind of event first happened, Unix ms.

    `members` whom it concerns, `online` connections that were offered it. `error`: what went wrong, in words.
    """

    uuid: str
    at_ms: int
    status: MessageState = "accepted"
    node: str = ""
    conversation: str = ""
    seq: int = 0
    send_id: str = ""
    receive_id: str = ""
    type: int = 0
    size: int = 0
    members: int = 0
    online: int = 0
    error: str = ""
    times: dict[EventKind, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What the filter language calls a failure, for a message that failed."""
        return next((kind for kind in self.times if kind in FAILURES), "accepted")

    @property
    def text(self) -> str:
        return self.error

    def take(self, event: Event) -> None:
        self.at_ms = min(self.at_ms, event.at_ms)
        self.times[event.kind] = min(event.at_ms, self.times.get(event.kind, event.at_ms))
        self.node = self.node or event.node
        self.conversation = event.conversation or self.conversation
        self.seq = event.seq or self.seq
        self.send_id = event.send_id or self.send_id
        self.receive_id = event.receive_id or self.receive_id
        self.type = event.type or self.type
        self.size = event.size or self.size
        self.members = max(self.members, event.members)
        self.online += event.online  # each node tells of its own connections
        if event.kind in FAILURES:
            self.error = event.text or event.kind
        state = _STATES.get(event.kind)
        if state is not None and _ORDER.index(state) > _ORDER.index(self.status):
            self.status = state


class Messages:
    """At most MESSAGES_MAX: the one that was heard of first goes first. Iterates newest first."""

    def __init__(self) -> None:
        self._by_uuid: OrderedDict[str, Message] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_uuid)

    def __iter__(self) -> Iterator[Message]:
        return reversed(self._by_uuid.values())

    def get(self, uuid: str) -> Message | None:
        return self._by_uuid.get(uuid)

    def take(self, event: Event) -> bool:
        """Whether the event is about a message."""
        if not event.uuid:
            return False
        message = self._by_uuid.get(event.uuid)
        if message is None:
            message = self._by_uuid[event.uuid] = Message(event.uuid, event.at_ms)
            if len(self._by_uuid) > MESSAGES_MAX:
                self._by_uuid.popitem(last=False)
        message.take(event)
        return True
