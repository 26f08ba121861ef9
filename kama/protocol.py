"""The words on the wire: frames in, frames out, and the rules that need no I/O to check.

JSON in and out through msgspec. Key names and their order are KamaChat's; what is ours comes after them.
"""

from __future__ import annotations

import functools
import math
import re
import time
from enum import IntEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from kama.errors import BadParameter, Code, KamaError, RateLimited
from kama.refusals import UNREADABLE, describe, explain, fields_of, refuse_nul

PROTOCOL_VERSION = 1
HISTORY_LIMIT = 50
HISTORY_LIMIT_MAX = 200
ISSUER = "kama_chat"
SEQ_MAX = 2**63 - 1  # what a database column holds

ID_PATTERN = r"[A-Za-z0-9_-]{1,19}"
_USER = re.compile(rf"U{ID_PATTERN}\Z")
_GROUP = re.compile(rf"G{ID_PATTERN}\Z")


class MessageType(IntEnum):
    """KamaChat's message types."""

    TEXT = 0
    VOICE = 1
    FILE = 2
    AUDIO_OR_VIDEO = 3


# Plain numbers: to name a member of an enumeration takes as long as to make a message's id.
_TEXT = int(MessageType.TEXT)
SIGNAL = int(MessageType.AUDIO_OR_VIDEO)


class MessageStatus(IntEnum):
    """The life of a stored message; it never goes back."""

    UNSENT = 0
    SENT = 1
    DELIVERED = 2
    READ = 3


def is_user_id(value: str) -> bool:
    """`U` and 1 to 19 of `[A-Za-z0-9_-]`."""
    return _USER.match(value) is not None


def is_group_id(value: str) -> bool:
    """`G` and 1 to 19 of `[A-Za-z0-9_-]`."""
    return _GROUP.match(value) is not None


def conversation_id(send_id: str, receive_id: str) -> str:
    """The conversation of a message: the group's id, or `<smaller>_<larger>` of the two user ids.

    An id may itself hold `_`: then `:`, which no id can hold, stands between the two. Otherwise the pairs
    (`U1`, `U2_U3`) and (`U1_U2`, `U3`) would be one conversation, and each would read the other's messages.
    """
    if receive_id[0] == "G":
        return receive_id
    if send_id > receive_id:
        send_id, receive_id = receive_id, send_id
    separator = ":" if "_" in send_id or "_" in receive_id else "_"
    return f"{send_id}{separator}{receive_id}"


def participants(conversation: str) -> tuple[str, str] | None:
    """The two users of a 1:1 conversation (the same twice for notes to oneself); None for a group."""
    if conversation.startswith("G"):
        return None
    first, found, second = conversation.partition(":" if ":" in conversation else "_")
    return (first, second) if found and is_user_id(first) and is_user_id(second) else None


def local_time(ms: int) -> str:
    """`YYYY-MM-DD HH:MM:SS` in the node's local time, as KamaChat writes it."""
    return _local_second(ms // 1000)


@functools.lru_cache(1024)
def _local_second(second: int) -> str:
    """The messages of one second are many, and the C library takes its time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


# --- from the client -----------------------------------------------------------------------------------

UserOrGroup = Annotated[str, Meta(pattern=rf"^[UG]{ID_PATTERN}\Z")]
UserId = Annotated[str, Meta(pattern=rf"^U{ID_PATTERN}\Z")]
Text20 = Annotated[str, Meta(max_length=20)]
Text50 = Annotated[str, Meta(max_length=50)]
Text255 = Annotated[str, Meta(max_length=255)]


class ChatMessageRequest(Struct, kw_only=True):
    """One message as a client sends it. Column sizes are upstream's; `client_msg_id` is ours.

    That the ids are ids, `decode_frame` sees to.
    """

    session_id: Text20 = ""
    type: Annotated[int, Meta(ge=0, le=3)]
    content: str = ""
    url: Text255 = ""
    send_id: str
    send_name: Text20 = ""
    send_avatar: Text255 = ""
    receive_id: str
    file_size: Text20 = ""
    file_type: Text50 = ""
    file_name: Text50 = ""
    av_data: str = ""
    client_msg_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class AuthFrame(Struct, tag="auth"):
    token: str


class DeliveredFrame(Struct, tag="delivered"):
    uuid: str


class ReadFrame(Struct, tag="read"):
    uuid: str


class PullFrame(Struct, tag="pull"):
    conversation: str
    after_seq: Annotated[int, Meta(ge=0, le=SEQ_MAX)] = 0
    limit: Annotated[int, Meta(ge=1, le=HISTORY_LIMIT_MAX)] = HISTORY_LIMIT


class PingFrame(Struct, tag="ping"):
    pass


ControlFrame = AuthFrame | DeliveredFrame | ReadFrame | PullFrame | PingFrame
CONTROL_TYPES = ("auth", "delivered", "read", "pull", "ping")


class _StrictRequest(ChatMessageRequest, kw_only=True):
    send_id: UserId
    receive_id: UserOrGroup


_chat_decoder = msgspec.json.Decoder(ChatMessageRequest)
_strict_decoder = msgspec.json.Decoder(_StrictRequest)
_control_decoder = msgspec.json.Decoder(ControlFrame)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode


class BadFrame(BadParameter):
    """A frame that is not one of ours. `client_msg_id` is given back where it could still be read."""

    def __init__(self, message: str, *, field: str | None = None, client_msg_id: str | None = None) -> None:
        super().__init__(message, field=field)
        self.client_msg_id = client_msg_id


def decode_frame(data: bytes) -> ChatMessageRequest | ControlFrame:
    """One frame of a client. Raises BadFrame, which names the field, what was expected and what came."""
    frame: ChatMessageRequest | ControlFrame
    try:
        frame = _chat_decoder.decode(data)
        if frame.send_id not in _known_senders or frame.receive_id not in _known_ids:
            _check_ids(frame, data)
    except UNREADABLE as error:
        frame = _decode_other(data, error)
    if b"\\u0000" in data:
        _refuse_nul(frame)
    return frame


# Ids that were seen and are right: a pattern takes as long as the rest of a frame.
_known_senders: set[str] = set()
_known_ids: set[str] = set()
_KNOWN_IDS_MAX = 100_000


def _check_ids(frame: ChatMessageRequest, data: bytes) -> None:
    """Raises msgspec's ValidationError, as if the patterns were the request's."""
    if not is_user_id(frame.send_id) or not (is_user_id(frame.receive_id) or is_group_id(frame.receive_id)):
        _strict_decoder.decode(data)
    for known, value in ((_known_senders, frame.send_id), (_known_ids, frame.receive_id)):
        if len(known) >= _KNOWN_IDS_MAX:
            known.clear()
        known.add(value)


def decode_request(data: bytes) -> ChatMessageRequest:
    """A chat message from HTTP or Kafka, where control frames do not exist. Raises BadFrame."""
    frame = decode_frame(data)
    if not isinstance(frame, ChatMessageRequest):
        raise BadFrame("expected a chat message with a numeric type, got a control frame", field="type")
    return frame


def _decode_other(data: bytes, error: Exception) -> ControlFrame:
    """A control frame, or the reason why the frame is none of ours.

    The first decoder stops at the first wrong field: what comes after it may be anything, and is read with care.
    """
    if not isinstance(error, msgspec.ValidationError):
        raise _unreadable(error)
    try:
        raw = fields_of(data)
    except UNREADABLE as broken:
        raise _unreadable(broken) from None
    kind = raw.get("type")
    client_msg_id = raw.get("client_msg_id")
    known_id = client_msg_id if isinstance(client_msg_id, str) and 0 < len(client_msg_id) <= 64 else None
    if not isinstance(kind, str):
        raise explain(error, raw, BadFrame, client_msg_id=known_id)
    if kind not in CONTROL_TYPES:
        names = ", ".join(CONTROL_TYPES)
        raise BadFrame(
            f"expected type 0, 1, 2 or 3 or one of {names}, got {describe(kind)}",
            field="type",
            client_msg_id=known_id,
        )
    try:
        control: ControlFrame = _control_decoder.decode(data)
        return control
    except msgspec.ValidationError as control_error:
        raise explain(control_error, raw, BadFrame) from None
    except UNREADABLE as broken:
        raise _unreadable(broken) from None


def _unreadable(error: Exception) -> BadFrame:
    return BadFrame(f"expected one JSON object in UTF-8: {error}")


def _refuse_nul(frame: ChatMessageRequest | ControlFrame) -> None:
    for field in frame.__struct_fields__:
        value = getattr(frame, field)
        if isinstance(value, str):
            refuse_nul(value, field, BadFrame, client_msg_id=getattr(frame, "client_msg_id", None))


# --- call signals --------------------------------------------------------------------------------------

_STORED_SIGNALS = frozenset({"start_call", "receive_call", "reject_call"})


class _AvData(Struct):
    messageId: str = ""
    type: str = ""


_av_decoder = msgspec.json.Decoder(_AvData)


def is_stored_signal(request: ChatMessageRequest) -> bool:
    """Whether a call signal (type 3) is kept: PROXY's start, receive and reject are, the rest is ephemeral.

    Raises BadFrame for `av_data` that is not a JSON object, and for a signal to a group.
    """
    if request.receive_id[0] == "G":
        raise BadFrame(
            "expected a call signal to a user (U…), got one to a group",
            field="receive_id",
            client_msg_id=request.client_msg_id,
        )
    try:
        signal = _av_decoder.decode(request.av_data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadFrame(
            f"expected a JSON object in a string, got {describe(request.av_data)}: {error}",
            field="av_data",
            client_msg_id=request.client_msg_id,
        ) from None
    return signal.messageId == "PROXY" and signal.type in _STORED_SIGNALS


# --- to the client -------------------------------------------------------------------------------------


class Message(Struct, kw_only=True):
    """A message as clients and history see it: upstream's keys in upstream's order, then ours."""

    send_id: str
    send_name: str
    send_avatar: str
    receive_id: str
    type: int
    content: str
    url: str
    file_type: str = ""
    file_name: str = ""
    file_size: str = "0B"
    created_at: str
    av_data: str | UnsetType = UNSET
    uuid: str
    session_id: str
    seq: int
    status: int = 0
    client_msg_id: str | UnsetType = UNSET
    created_ms: int


def build_message(request: ChatMessageRequest, uuid: int, seq: int, created_ms: int) -> Message:
    """What is stored and pushed for a request: file fields only where the type has them."""
    message = Message(
        send_id=request.send_id,
        send_name=request.send_name,
        send_avatar=request.send_avatar,
        receive_id=request.receive_id,
        type=request.type,
        content=request.content,
        url=request.url,
        created_at=_local_second(created_ms // 1000),
        uuid=str(uuid),
        session_id=request.session_id,
        seq=seq,
        created_ms=created_ms,
    )
    if request.client_msg_id is not None:
        message.client_msg_id = request.client_msg_id
    if request.type == _TEXT:
        return message
    if request.type == SIGNAL:
        message.content = message.url = message.file_size = ""
        message.av_data = request.av_data
    else:
        message.file_type = request.file_type
        message.file_name = request.file_name
        message.file_size = request.file_size
    return message


class SystemFrame(Struct, kw_only=True, omit_defaults=True, tag="system"):
    """`event` is `welcome` (first on every connection), `caught_up` or `pulled`.

    `complete` is false when a conversation had more than `resume_max` messages waiting: `behind` then names
    each, and the client pulls. `positions` gives the last seq of the user's conversations, so that a client
    which knows its own can see whether anything is missing.
    """

    content: str
    event: Literal["welcome", "caught_up", "pulled"]
    node: str | UnsetType = UNSET
    protocol: int | UnsetType = UNSET
    limits: dict[str, int | float] | UnsetType = UNSET
    complete: bool | UnsetType = UNSET
    behind: list[Behind] | UnsetType = UNSET
    positions: dict[str, int] | UnsetType = UNSET
    conversation: str | UnsetType = UNSET
    last_seq: int | UnsetType = UNSET


class Behind(Struct):
    """A conversation that goes on past what catch-up pushed: pull from `after_seq` up to `last_seq`."""

    conversation: str
    after_seq: int
    last_seq: int


class AckFrame(Struct, kw_only=True, tag="ack"):
    client_msg_id: str
    uuid: str
    status: Literal["accepted"] = "accepted"


class StatusFrame(Struct, kw_only=True, tag="status"):
    """The sender's messages of `conversation` up to `seq` are now `status` (a name) by `user_id`; `at` in ms.

    `after`: only those after this seq. Of those before it the user has still to pull some.
    """

    conversation: str
    seq: int
    status: Literal["sent", "delivered", "read"]
    user_id: str
    at: int
    after: int | UnsetType = UNSET


class ErrorFrame(Struct, kw_only=True, omit_defaults=True, tag="error"):
    code: int
    message: str
    field: str | None = None
    client_msg_id: str | None = None
    retry_after_ms: int | None = None


class ExpiringFrame(Struct, tag="expiring"):
    """The token ends in `in_` seconds (key `in`)."""

    in_: int = msgspec.field(name="in")


class PongFrame(Struct, tag="pong"):
    pass


def error_frame(error: KamaError, client_msg_id: str | None = None) -> bytes:
    """An error as the client meets it on the socket."""
    if client_msg_id is None and isinstance(error, BadFrame):
        client_msg_id = error.client_msg_id
    retry = math.ceil(error.retry_after * 1000) if isinstance(error, RateLimited) else None
    return encode(
        ErrorFrame(
            code=error.code,
            message=error.message,
            field=error.field,
            client_msg_id=client_msg_id,
            retry_after_ms=retry,
        )
    )


class Envelope(Struct):
    """Every HTTP answer but health and metrics."""

    code: int
    msg: str
    data: Any = None


def envelope(data: Any = None) -> bytes:
    return encode(Envelope(Code.SUCCESS, "success", data))


def error_envelope(code: int, message: str) -> bytes:
    return encode(Envelope(code, message, None))
