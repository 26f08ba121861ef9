"""ChatClient: one user's side of its conversations, across reconnects. What it sends is accepted once; what it
receives comes in seq order, once, without a gap, whatever happens to the node or the connection between.

What a client has to do for that, and all of it is here: give each message a `client_msg_id` and send it again until
it is acknowledged; remember the last seq of each conversation; drop what it has seen; pull what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kama.backoff import Backoff
from kama.client import Connection, Frame, NodeClient, Token, error_of
from kama.errors import Busy, CannotConnect, CloseCode, KamaError, RateLimited, TimedOut
from kama.protocol import HISTORY_LIMIT_MAX, conversation_id

_BACKOFF_FIRST = 0.1
_BACKOFF_MAX = 5.0
# After these the node wants a person to decide: they are not for a client to come back from by itself.
_FINAL = frozenset({CloseCode.REPLACED, CloseCode.KICKED, CloseCode.FORBIDDEN, CloseCode.ABUSE})


class Dismissed(CannotConnect):
    """The node ended the connection with a code after which a client must not come back by itself."""


class Tap:
    """Sees a client's connections as they are, below all that the client does. Override what you want to see."""

    def opened(self) -> None:
        """A login succeeded."""

    def sent(self, frame: Frame) -> None:
        """A frame is about to be sent."""

    def received(self, frame: Frame) -> None:
        """A frame came. A pulled message looks like a pushed one: the pull was `sent` before, `pulled` ends it."""

    def closed(self, code: int, reason: str) -> None:
        """The connection ended, and not because this client was cancelled."""


@dataclass(slots=True)
class _Outgoing:
    """A message on its way to being accepted."""

    frame: Frame
    accepted: asyncio.Future[str]


@dataclass(slots=True)
class _Incoming:
    """A conversation as this client has it. `ahead`: messages that came before the ones that they follow."""

    last: int
    ahead: dict[int, Frame] = field(default_factory=dict)
    pulling: bool = False


class ChatClient:
    """`on_message` is given each chat message once, per conversation in seq order; `on_frame` every other frame.

    `last_seen` maps conversations to the last seq that this client has from an earlier life. Of a conversation
    that it does not know, it wants everything (`unknown="all"`) or what comes from now on (`"new"`).

    `tap` sees every frame of every connection, as it is. `client`: the class to reach the node by.

    Raises (from `run`) Dismissed, and what the node answers to a login that waiting does not mend: Unauthorised,
    Forbidden. A node that is away is waited for, for ever.
    """

    def __init__(
        self,
        server: str,
        user_id: str,
        token: Token,
        on_message: Callable[[Frame], None],
        *,
        on_frame: Callable[[Frame], None] = lambda frame: None,
        device: str = "",
        last_seen: Mapping[str, int] | None = None,
        unknown: Literal["all", "new"] = "all",
        tap: Tap | None = None,
        client: type[NodeClient] = NodeClient,
    ) -> None:
        self.user_id = user_id
        self._node = client(server, token)
        self._on_message = on_message
        self._on_frame = on_frame
        self._device = device
        self._unknown = unknown
        self._tap = tap or Tap()
        self._incoming = {key: _Incoming(last) for key, last in (last_seen or {}).items()}
        self._outbox: dict[str, _Outgoing] = {}
        self._connection: Connection | None = None
        self._caught_up = asyncio.Event()
        self._was_caught_up = False
        self._turn = asyncio.Lock()
        self.connects = 0

    # --- the run

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(_BACKOFF_FIRST, _BACKOFF_MAX)
        try:
            while True:
                wait = 0.0
                try:
                    wait = await self._connected()
                except Dismissed:
                    raise
                except (CannotConnect, TimedOut, Busy, RateLimited):
                    pass
                if self._was_caught_up:
                    backoff.begin_anew()
                # Jitter: after an outage not all clients come back in the same moment.
                await asyncio.sleep(wait + random.uniform(0, backoff.take()))
        finally:
            await self._node.close()

    async def _connected(self) -> float:
        """One connection from login to end. Gives the seconds that the node asks to wait before the next."""
        self._was_caught_up = False
        async with self._node.login(self.user_id, device=self._device) as connection:
            self.connects += 1
            self._connection = connection
            self._tap.opened()
            try:
                for outgoing in list(self._outbox.values()):
                    await self._send(connection, outgoing.frame)
                while True:
                    frame = await connection.receive()
                    self._tap.received(frame)
                    await self._take(connection, frame)
            except CannotConnect:
                code, reason = connection.closed_with or (CloseCode.GOING_AWAY, "")
                self._tap.closed(code, reason)
                if code in _FINAL:
                    raise Dismissed(f"the node closed the connection with {code} ({reason})") from None
                return _retry_after(reason)
            finally:
                self._connection = None
                self._caught_up.clear()
                for conversation in self._incoming.values():
                    conversation.pulling = False

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def wait_caught_up(self) -> None:
        """Until the node has said that this connection has everything."""
        await self._caught_up.wait()

    # --- sending

    async def send(self, receive_id: str, content: str = "", **fields: Any) -> str:
        """The message's uuid, once a crash of the node can no longer lose it. Raises what the node refuses it with."""
        client_msg_id = uuid.uuid4().hex
        frame = {"type": 0, "content": content, **fields}
        frame |= {"send_id": self.user_id, "receive_id": receive_id, "client_msg_id": client_msg_id}
        outgoing = self._outbox[client_msg_id] = _Outgoing(frame, asyncio.get_running_loop().create_future())
        try:
            wait = await self._attempt(outgoing)
            if wait is None:
                return outgoing.accepted.result()
            # Refused for now. Who was goes on one at a time: all at once would be refused once more, and again.
            async with self._turn:
                while wait is not None:
                    await asyncio.sleep(wait)
                    wait = await self._attempt(outgoing)
            return outgoing.accepted.result()
        finally:
            self._outbox.pop(client_msg_id, None)

    async def report(self, uuid: str, status: Literal["delivered", "read"]) -> None:
        """Tell the sender what became of a message here, and of all before it; lost while nothing is connected."""
        if self._connection is not None:
            with contextlib.suppress(CannotConnect):
                await self._send(self._connection, {"type": status, "uuid": uuid})

    async def _attempt(self, outgoing: _Outgoing) -> float | None:
        """Send it and wait for the answer: None once it is accepted, else the seconds until it may be tried again."""
        if outgoing.accepted.done():
            outgoing.accepted = asyncio.get_running_loop().create_future()
        if self._connection is not None:
            with contextlib.suppress(CannotConnect):  # the next connection sends what is in the outbox
                await self._send(self._connection, outgoing.frame)
        try:
            await outgoing.accepted
        except KamaError as error:
            if not error.retriable:
                raise
            return error.retry_after if isinstance(error, RateLimited) else _BACKOFF_FIRST
        return None

    async def _send(self, connection: Connection, frame: Frame) -> None:
        self._tap.sent(frame)
        await connection.send(frame)

    # --- receiving

    async def _take(self, connection: Connection, frame: Frame) -> None:
        match frame.get("type"):
            case int():
                await self._take_message(connection, frame)
            case "ack":
                self._accepted(frame)
            case "error":
                self._refused(frame)
            case "system":
                await self._take_system(connection, frame)
            case _:
                self._on_frame(frame)

    def _accepted(self, frame: Frame) -> None:
        outgoing = self._outbox.get(frame["client_msg_id"])
        if outgoing is not None and not outgoing.accepted.done():
            outgoing.accepted.set_result(frame["uuid"])

    def _refused(self, frame: Frame) -> None:
        outgoing = self._outbox.get(frame.get("client_msg_id", ""))
        if outgoing is None:
            self._on_frame(frame)
        elif not outgoing.accepted.done():
            outgoing.accepted.set_exception(error_of(frame))

    async def _take_system(self, connection: Connection, frame: Frame) -> None:
        if frame.get("event") == "caught_up":
            ends = dict(frame.get("positions") or {})
            ends |= {behind["conversation"]: behind["last_seq"] for behind in frame.get("behind") or []}
            for key, last_seq in ends.items():
                if key not in self._incoming and self._unknown == "new":
                    self._incoming[key] = _Incoming(last_seq)
                await self._reach(connection, key, last_seq)
            self._was_caught_up = True
            self._caught_up.set()
        elif frame.get("event") == "pulled":
            conversation = self._known(frame["conversation"])
            conversation.pulling = False
            ahead = max(conversation.ahead, default=0)
            await self._reach(connection, frame["conversation"], max(frame["last_seq"], ahead))
        self._on_frame(frame)

    async def _take_message(self, connection: Connection, frame: Frame) -> None:
        seq = frame["seq"]
        if not seq:  # a call signal that is not stored: it has no place in the conversation
            self._on_message(frame)
            return
        key = conversation_id(frame["send_id"], frame["receive_id"])
        conversation = self._known(key)
        if seq > conversation.last:
            conversation.ahead[seq] = frame
        while (following := conversation.ahead.pop(conversation.last + 1, None)) is not None:
            conversation.last += 1
            self._on_message(following)
        if conversation.ahead:
            await self._reach(connection, key, max(conversation.ahead))

    async def _reach(self, connection: Connection, key: str, seq: int) -> None:
        """Pull the conversation, a page at a time, until it has this seq."""
        conversation = self._known(key)
        if conversation.last < seq and not conversation.pulling:
            conversation.pulling = True
            page = {"conversation": key, "after_seq": conversation.last, "limit": HISTORY_LIMIT_MAX}
            await self._send(connection, {"type": "pull", **page})

    def _known(self, key: str) -> _Incoming:
        return self._incoming.setdefault(key, _Incoming(0))


def _retry_after(reason: str) -> float:
    """Seconds, from the reason of a 1001: `{"retry_after_ms":1200}`."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return float(json.loads(reason)["retry_after_ms"]) / 1000
    return 0.0
