"""What is in the log's records: messages as clients are sent them, and how far users are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from kama.protocol import Message, encode

MESSAGES = 1
PROGRESS = 2

# JSON writes a line end within a text as two other characters: it can stand between the messages.
_BETWEEN = b"\n"
_decode_message = msgspec.json.Decoder(Message).decode


class ProgressRecord(Struct, array_like=True):
    """`sent`: ids of messages that reached a socket. `cursors`: user, conversation, sent, delivered and read seq.
    `receipts`: user, conversation, status, seq. `at`: Unix milliseconds."""

    at: int
    sent: Sequence[int]
    cursors: Sequence[tuple[str, str, int, int, int]]
    receipts: Sequence[tuple[str, str, int, int]]


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


write_progress = encode
read_progress = msgspec.json.Decoder(ProgressRecord).decode
write_report = encode
read_report = msgspec.json.Decoder(Report).decode


def write_messages(frames: Iterable[bytes]) -> bytes:
    """From messages in JSON."""
    return _BETWEEN.join(frames)


def read_messages(content: bytes) -> list[Message]:
    return [_decode_message(line) for line in content.split(_BETWEEN)]
