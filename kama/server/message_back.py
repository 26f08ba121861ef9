"""MessageBack: one stored message on its way back to sockets, encoded once and shared by all who get it."""

from __future__ import annotations

from dataclasses import dataclass

from kama.protocol import Message, MessageType, encode


@dataclass(frozen=True, slots=True)
class MessageBack:
    """`echo`: whether the sender sees it too (call signals are for the receiver alone). `note`: to oneself.

    `pulled`: the client asked for it, whatever it was pushed before. `live`: straight from its storing, not read back.
    """

    frame: bytes
    uuid: int
    conversation: str
    seq: int
    send_id: str
    accepted_ms: int = 0
    echo: bool = True
    note: bool = False
    pulled: bool = False
    live: bool = False

    def is_shown_to(self, user_id: str) -> bool:
        return self.echo or self.pulled or user_id != self.send_id

    def counts_as_sent_to(self, user_id: str) -> bool:
        """The sender's own echo does not count, but a note to oneself has no other receiver."""
        return self.note or user_id != self.send_id


def message_back(conversation: str, message: Message, *, pulled: bool = False, live: bool = False) -> MessageBack:
    note = message.send_id == message.receive_id
    return MessageBack(
        encode(message),
        int(message.uuid),
        conversation,
        message.seq,
        message.send_id,
        message.created_ms,
        echo=note or message.type != MessageType.AUDIO_OR_VIDEO,
        note=note,
        pulled=pulled,
        live=live,
    )
