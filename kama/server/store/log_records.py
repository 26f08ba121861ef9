"""What is in the log's records: messages as clients are sent them, and how far users are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from kama.protocol import encode

MESSAGES = 1
PROGRESS = 2

# JSON writes a line end within a text as two other characters: it can stand between the messages.
_BETWEEN = b"\n"


class LoggedMessage(Struct, kw_only=True, gc=False):
    """Of a message in JSON, what a row has of it."""

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
    av_data: str | None = None
    uuid: int
    session_id: str
    seq: int
    client_msg_id: str | None = None
    created_ms: int


# Not strict: clients get ids as text, since their numbers may not hold one.
_decode_messages = msgspec.json.Decoder(LoggedMessage, strict=False).decode_lines


class ProgressRecord(Struct, array_like=True):
    """`sent`: ids of messages that reached a socket. `cursors`: user, conversation, sent, delivered and read seq.
    `receipts`: user, conversation, status, seq. `pushed`: as `cursors`, where only the sent seq moves, which is most of
    them: conversation, then user. `at`: Unix milliseconds.

    A record of before there was `pushed` ends before it; one of soon after has seqs by "<user> <conversation>".
    """

    at: int
    sent: Sequence[int]
    cursors: Sequence[tuple[str, str, int, int, int]]
    receipts: Sequence[tuple[str, str, int, int]]
    pushed: dict[str, dict[str, int] | int] = {}


class Rise(Struct, array_like=True):
    """A message whose status a receipt has raised."""

    uuid: int
    conversation: str
    seq: int
    send_id: str
    has_client_id: bool
    status: int
    user_id: str


class Report(Struct, omit_defaults=True):
    """What the folding process says after each transaction, as one line of JSON.

    `folded`: the store has the log up to here. `kept`: it has it for certain, whatever happens to the machine.
    `rises`: by the position after the record that raised them. `refused`: messages that the database would not take.
    """

    folded: int = 0
    kept: int = 0
    rises: list[tuple[int, list[Rise]]] = []
    refused: int = 0
    trouble: str = ""


read_progress = msgspec.json.Decoder(ProgressRecord).decode
write_report = encode
read_report = msgspec.json.Decoder(Report).decode


def write_messages(frames: Iterable[bytes]) -> bytes:
    """From messages in JSON."""
    return _BETWEEN.join(frames)


def join_messages(contents: Iterable[bytes]) -> bytes:
    """The contents of several records as one."""
    return _BETWEEN.join(contents)


def write_progress(
    sent: Iterable[int],
    cursors: Mapping[tuple[str, str], Sequence[int]],
    receipts: Mapping[tuple[str, str, Any], int],
    pushed: dict[str, dict[str, int]],
    at: int,
) -> bytes:
    """`cursors`: by user and conversation, the sent, delivered and read seq; `pushed`: by conversation and user, the
    sent seq alone. `receipts`: the seq by user, conversation and status. `at`: Unix milliseconds."""
    moved = [(user, key, seqs[0], seqs[1], seqs[2]) for (user, key), seqs in cursors.items()]
    raised = [(user, key, status, seq) for (user, key, status), seq in receipts.items()]
    return encode((at, list(sent), moved, raised, pushed))  # a ProgressRecord


def read_messages(content: bytes) -> list[LoggedMessage]:
    return _decode_messages(content)
