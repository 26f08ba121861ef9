"""Peers: what nodes tell each other. Each node has an inbox; only who holds a user is told what concerns that user."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec
import structlog
from msgspec import Raw, Struct

from kama.backoff import Backoff
from kama.errors import TooLarge
from kama.protocol import encode
from kama.server.broker import MessageBroker
from kama.server.delivery import Delivery
from kama.server.directory import Directory
from kama.server.events import Journal
from kama.server.membership import Membership
from kama.server.message_back import passed_on
from kama.server.registry import ClientRegistry
from kama.server.tasks import cancel, spawn
from kama.server.traffic import HighMark

log = structlog.get_logger("kama.peers")

_RETRY_FIRST = 0.2
_RETRY_MAX = 2.0
# Of one payload. A transport has a bound for what it takes at once, and a batch of long messages is above it.
_BYTES = 256 << 10


class Delivered(Struct, tag="message"):
    """A stored message, in JSON, for the connections of its recipients."""

    conversation: str
    message: Raw


class Signalled(Struct, tag="signal"):
    """A call signal that nobody stores."""

    user_id: str
    frame: Raw


class Notified(Struct, tag="notify"):
    """A frame for whatever connections the user has."""

    user_id: str
    frame: Raw


class Closed(Struct, tag="close"):
    """The user's connections, or those named, have to go."""

    user_id: str
    code: int
    reason: str
    connection_ids: list[str] | None = None


class GroupChanged(Struct, tag="group"):
    """Who is in the group is not what it was."""

    group_id: str


class Joined(Struct, tag="joined"):
    """A node has come, and is to be told things from now on."""


Event = Delivered | Signalled | Notified | Closed | GroupChanged | Joined
_decode = msgspec.json.Decoder(list[Event]).decode


def _parcels(events: Iterable[Event]) -> Iterator[tuple[list[Event], bytes]]:
    """The events in as few payloads as they fit into: what is in each, and the payload."""
    parcel: list[Event] = []
    parts: list[bytes] = []
    room = _BYTES
    for event in events:
        part = encode(event)
        if parcel and len(part) > room:
            yield parcel, _payload(parts)
            parcel, parts, room = [], [], _BYTES
        parcel.append(event)
        parts.append(part)
        room -= len(part)
    if parcel:
        yield parcel, _payload(parts)


def _payload(parts: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"


class Peers:
    def __init__(
        self,
        directory: Directory,
        broker: MessageBroker,
        registry: ClientRegistry,
        delivery: Delivery,
        membership: Membership,
        journal: Journal | None = None,
    ) -> None:
        self._directory = directory
        self._broker = broker
        self._registry = registry
        self._delivery = delivery
        self._membership = membership
        self._journal = journal or Journal()
        self._pending: list[tuple[Collection[str] | None, Event]] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.mark = HighMark()
        self.forwarded = 0
        self.received = 0

    async def start(self) -> None:
        self._tasks = [spawn(self._send(), name="to peers"), spawn(self._receive(), name="inbox")]
        # A node that was alone tells nobody anything, and hears of others only with its next heartbeat.
        self.post(None, Joined())

    async def close(self) -> None:
        for task in self._tasks:
            await cancel(task)

    @property
    def depth(self) -> int:
        """Events for other nodes that wait to be forwarded, those apart that the consumer itself waits for."""
        return len(self._pending)

    @property
    def are_there(self) -> bool:
        return bool(self._directory.others)

    # --- to others

    async def tell(self, events: Sequence[tuple[Collection[str] | None, Event]]) -> None:
        """Each event to the other nodes that hold one of its users; None: to all other nodes.

        Returns once they have it in their inbox.
        """
        others = self._directory.others
        if not events or not others:
            return
        users = {user for concerned, _ in events for user in concerned or ()}
        where = await self._directory.nodes_of(users) if users else {}
        boxes: dict[str, list[Event]] = {}
        for concerned, event in events:
            nodes = others if concerned is None else {node for user in concerned for node in where.get(user, ())}
            for node in nodes:
                boxes.setdefault(node, []).append(event)
            if nodes and isinstance(event, Delivered):
                back = passed_on(event.conversation, event.message)
                text = ", ".join(sorted(nodes))
                self._journal.routed(back.uuid, back.conversation, back.seq, len(concerned or ()), text=text)
        await asyncio.gather(*(self._fill(node, box) for node, box in boxes.items()))

    async def _fill(self, node: str, box: Iterable[Event]) -> None:
        for parcel, payload in _parcels(box):
            await self._forward(node, parcel, payload)

    def post(self, users: Collection[str] | None, event: Event) -> None:
        """The same without waiting."""
        if self._directory.others:
            self._pending.append((users, event))
            self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self.mark.see(self.depth)
            pending, self._pending = self._pending, []
            try:
                await self.tell(pending)
            except Exception as error:
                log.error("other nodes were not told", count=len(pending), exc_info=error)

    async def _forward(self, node: str, parcel: list[Event], payload: bytes) -> None:
        """Until the node has it, or is no more: who left it meanwhile is caught up where it comes back."""
        backoff = Backoff(_RETRY_FIRST, _RETRY_MAX)
        while parcel and node in self._directory.others:
            try:
                await self._broker.forward(node, payload)
                self.forwarded += len(parcel)
                return
            except TooLarge as error:
                log.error("another node was not told: it is caught up by what comes next", node=node, error=str(error))
                return
            except Exception as error:
                log.warning("another node's inbox cannot be reached: trying again", node=node, error=repr(error))
            # The first try may still arrive. All else changes nothing when it comes twice; a signal would ring twice.
            parcel = [event for event in parcel if not isinstance(event, Signalled)]
            payload = encode(parcel)
            await asyncio.sleep(backoff.take())

    # --- from others

    async def _receive(self) -> None:
        async for payload in self._broker.inbox():
            try:
                events = _decode(payload)
            except msgspec.MsgspecError as error:
                log.error("another node said what cannot be read: are the versions the same?", error=str(error))
                continue
            for event in events:
                try:
                    await self._take(event)
                    self.received += 1
                except Exception as error:
                    log.error("another node's word was not acted upon", kind=type(event).__name__, exc_info=error)

    async def _take(self, event: Event) -> None:
        match event:
            case Delivered():
                await self._delivery.deliver(passed_on(event.conversation, bytes(event.message)))
            case Signalled():
                self._delivery.signal(event.user_id, bytes(event.frame))
            case Notified():
                self.notify_here(event.user_id, bytes(event.frame))
            case Closed():
                self.close_here(event)
            case GroupChanged():
                self._membership.forget(event.group_id)
            case Joined():
                await self._directory.look()

    def notify_here(self, user_id: str, frame: bytes) -> None:
        for conn in self._registry.get(user_id):
            conn.offer_control(frame)

    def close_here(self, event: Closed) -> int:
        """How many connections it closed."""
        chosen = [
            conn
            for conn in self._registry.get(event.user_id)
            if event.connection_ids is None or conn.id in event.connection_ids
        ]
        for conn in chosen:
            conn.close(event.code, event.reason)
        return len(chosen)

    # --- to everybody

    def notify(self, user_id: str, frame: bytes) -> None:
        self.notify_here(user_id, frame)
        self.post((user_id,), Notified(user_id, Raw(frame)))

    async def close_user(self, event: Closed) -> int:
        """On all nodes; how many connections there were to close."""
        here = self.close_here(event)
        elsewhere = await self._directory.count(event.user_id, event.connection_ids)
        self.post((event.user_id,), event)
        return here + elsewhere
