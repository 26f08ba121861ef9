"""Delivery: who gets a stored message, and the offer to each of their connections on this node. Never waits."""

from __future__ import annotations

from collections.abc import Collection

from kama.protocol import Message, build_message, encode
from kama.server.broker import Record
from kama.server.membership import Membership
from kama.server.message_back import MessageBack, message_back
from kama.server.registry import ClientRegistry


class Delivery:
    def __init__(self, registry: ClientRegistry, membership: Membership) -> None:
        self._registry = registry
        self._membership = membership
        self.offered = 0
        self.ephemeral_dropped = 0

    async def deliver(self, conversation: str, message: Message) -> Collection[str]:
        """To every connection here of every member of a group; of a pair, the receiver's and the sender's.

        Gives these users, wherever they are.
        """
        back: MessageBack | None = None
        users = await self._recipients(message)
        for user_id in users:
            for conn in self._registry.get(user_id):
                if back is None:
                    back = message_back(conversation, message)
                self.offered += 1
                conn.offer(back)
        return users

    async def _recipients(self, message: Message) -> Collection[str]:
        if message.receive_id[0] == "G":
            return await self._membership.members(message.receive_id) or ()
        if message.send_id == message.receive_id:
            return (message.receive_id,)
        return (message.receive_id, message.send_id)

    def deliver_ephemeral(self, record: Record) -> None:
        """A call signal that nobody stores: to the receiver's connections, if they are there and have room."""
        self.signal(record.request.receive_id, signal_frame(record))

    def signal(self, user_id: str, frame: bytes) -> None:
        reached = [conn.offer_ephemeral(frame) for conn in self._registry.get(user_id)]
        if not any(reached):
            self.ephemeral_dropped += 1


def signal_frame(record: Record) -> bytes:
    """A call signal as its receiver gets it: outside of the conversation, with seq 0."""
    return encode(build_message(record.request, record.uuid, 0, record.accepted_ms))
