"""Delivery: who gets a stored message, and the offer to each of their connections on this node. Never waits."""

from __future__ import annotations

from collections.abc import Collection

from kama.protocol import build_message, encode
from kama.server.broker import Record
from kama.server.events import Journal
from kama.server.membership import Membership
from kama.server.message_back import MessageBack
from kama.server.registry import ClientRegistry
from kama.server.ws_gateway import UserConn


class Delivery:
    def __init__(self, registry: ClientRegistry, membership: Membership, journal: Journal | None = None) -> None:
        self._registry = registry
        self._membership = membership
        self._journal = journal or Journal()
        self.offered = 0
        self.ephemeral_dropped = 0

    async def deliver(self, back: MessageBack) -> Collection[str]:
        """To every connection here of every member of a group; of a pair, the receiver's and the sender's.

        Gives these users, wherever they are.
        """
        users = self._recipients(back)
        if users is None:
            users = await self._membership.members(back.receive_id) or ()
        return self._offer(back, users)

    def deliver_now(self, back: MessageBack) -> Collection[str] | None:
        """The same, without waiting. None: nothing was done, for the members of its group have to be read."""
        users = self._recipients(back)
        return None if users is None else self._offer(back, users)

    def _recipients(self, back: MessageBack) -> Collection[str] | None:
        receive_id, send_id = back.receive_id, back.send_id
        if receive_id[0] == "G":
            return self._membership.known(receive_id)
        return (receive_id,) if send_id == receive_id else (receive_id, send_id)

    def _offer(self, back: MessageBack, users: Collection[str]) -> Collection[str]:
        connections_of = self._registry.get
        online: list[UserConn] = []
        for user_id in users:
            online += connections_of(user_id)
        journal = self._journal
        depth = max([conn.depth for conn in online], default=0) if journal.traffic.queued else 0
        # Noted before: the first that a connection is offered in a turn of the loop is written at once.
        journal.routed(back.uuid, back.conversation, back.seq, len(users), len(online), depth)
        for conn in online:
            conn.offer(back)
        self.offered += len(online)
        return users

    def deliver_ephemeral(self, record: Record) -> bool:
        """A call signal that nobody stores: to the receiver's connections, if they are there and have room.

        False when it reached none here.
        """
        return self.signal(record.request.receive_id, signal_frame(record))

    def signal(self, user_id: str, frame: bytes) -> bool:
        reached = [conn.offer_ephemeral(frame) for conn in self._registry.get(user_id)]
        if not any(reached):
            self.ephemeral_dropped += 1
        return any(reached)


def signal_frame(record: Record) -> bytes:
    """A call signal as its receiver gets it: outside of the conversation, with seq 0."""
    return encode(build_message(record.request, record.uuid, 0, record.accepted_ms))
