"""MessageBack: one stored message on its way back to sockets, encoded once and shared by all who get it."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kama.protocol import SIGNAL, Message, encode
from kama.server.transport.ws_frame import text_frame


class MessageBack(Struct, gc=False):
    """`frame` is the message in JSON, `made` the same as a whole text frame.

    `pulled`: the client asked for it, whatever it was pushed before. `live`: straight from its storing, not read back.
    `unsent`: it has not reached a socket of a receiver, as far as is known.
    """

    frame: bytes
    made: bytes
    uuid: int
    conversation: str
    seq: int
    send_id: str
    receive_id: str
    type: int
    accepted_ms: int
    has_client_id: bool
    unsent: bool = True
    pulled: bool = False
    live: bool = False

    def is_shown_to(self, user_id: str) -> bool:
        """The sender sees it too, but call signals are for the receiver alone."""
        return user_id != self.send_id or self.type != SIGNAL or self.pulled or self.receive_id == user_id


def message_back(
    conversation: str, message: Message, *, frame: bytes | None = None, pulled: bool = False, live: bool = False
) -> MessageBack:
    """`frame`: the message in JSON, where somebody has it already."""
    frame = encode(message) if frame is None else frame
    return MessageBack(
        frame,
        text_frame(frame),
        int(message.uuid),
        conversation,
        message.seq,
        message.send_id,
        message.receive_id,
        message.type,
        message.created_ms,
        message.client_msg_id is not UNSET,
        not message.status,
        pulled,
        live,
    )


class _Head(Struct):
    """Of a message in JSON, what it takes to pass it on."""

    uuid: str
    seq: int
    send_id: str
    receive_id: str
    type: int
    created_ms: int
    client_msg_id: str | UnsetType = UNSET


_decode_head = msgspec.json.Decoder(_Head).decode


def passed_on(conversation: str, frame: bytes) -> MessageBack:
    """A message as another node has just stored it. Raises msgspec.MsgspecError."""
    head = _decode_head(frame)
    return MessageBack(
        frame,
        text_frame(frame),
        int(head.uuid),
        conversation,
        head.seq,
        head.send_id,
        head.receive_id,
        head.type,
        head.created_ms,
        head.client_msg_id is not UNSET,
        live=True,
    )
