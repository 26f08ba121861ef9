"""Delivery: who gets a stored message, and the offer to each of their connections on this node. Never waits."""

from __future__ import annotations

from collections.abc import Collection

from kama.protocol import Message, build_message, encode
from kama.server.broker import Record
from kama.server.events import Journal
from kama.server.membership import Membership
from kama.server.message_back import MessageBack, message_back
from kama.server.registry import ClientRegistry


class Delivery:
    def __init__(self, registry: ClientRegistry, membership: Membership, journal: Journal | None = None) -> None:
        self._registry = registry
        self._membership = membership
        self._journal = journal or Journal()
        self.offered = 0
        self.ephemeral_dropped = 0

    async def deliver(self, conversation: str, message: Message) -> Collection[str]:
        """To every connection here of every member of a group; of a pair, the receiver's and the sender's.

        Gives these users, wherever they are.
        """
        back: MessageBack | None = None
        users = await self._recipients(message)
        online = depth = 0
        for user_id in users:
            for conn in self._registry.get(user_id):
                if back is None:
                    back = message_back(conversation, message, live=True)
                conn.offer(back)
                online += 1
                depth = max(depth, conn.depth)
        self.offered += online
        self._journal.routed(int(message.uuid), conversation, message.seq, len(users), online, depth)
        return users

    async def _recipients(self, message: Message) -> Collection[str]:
        if message.receive_id[0] == "G":
            return await self._membership.members(message.receive_id) or ()
        if message.send_id == message.receive_id:
            return (message.receive_id,)
        return (message.receive_id, message.send_id)

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
