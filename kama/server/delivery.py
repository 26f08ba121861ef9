"""Delivery: who gets a stored message, and the offer to each of their connections on this node. Never waits."""

from __future__ import annotations

from collections.abc import Iterable

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

    async def deliver(self, conversation: str, message: Message) -> None:
        """To every connection of every member of a group; of a pair, the receiver's and the sender's."""
        back: MessageBack | None = None
        for user_id in await self._recipients(message):
            for conn in self._registry.get(user_id):
                if back is None:
                    back = message_back(conversation, message)
                self.offered += 1
                conn.offer(back)

    async def _recipients(self, message: Message) -> Iterable[str]:
        if message.receive_id[0] == "G":
            return await self._membership.members(message.receive_id) or ()
        if message.send_id == message.receive_id:
            return (message.receive_id,)
        return (message.receive_id, message.send_id)

    def deliver_ephemeral(self, record: Record) -> None:
        """A call signal that nobody stores: to the receiver's connections, if they are there and have room."""
        frame = encode(build_message(record.request, record.uuid, 0, record.accepted_ms))
        reached = [conn.offer_ephemeral(frame) for conn in self._registry.get(record.request.receive_id)]
        if not any(reached):
            self.ephemeral_dropped += 1
