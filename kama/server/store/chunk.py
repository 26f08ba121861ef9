"""Chunk: what is folded in one transaction, put together so that most rows are written once.

Everything here happens for every message, on a core that the node may need: what a record has many of is taken in whole
lists, by what Python has in C.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from operator import attrgetter
from typing import Any

from kama.protocol import conversation_id, participants
from kama.server.store.log_reading import Record
from kama.server.store.log_records import (
    MESSAGES,
    LoggedMessage,
    ProgressRecord,
    join_messages,
    read_messages,
    read_progress,
)

# What only some messages have comes last: the row of another ends before it, and the statement has the rest.
_ALWAYS = (
    "uuid", "conversation", "seq", "session_id", "type", "content", "send_id", "send_name", "send_avatar",
    "receive_id", "status", "created_at", "send_at",
)  # fmt: skip
_SOMETIMES = {
    "client_msg_id": "NULL", "url": "''", "file_type": "''", "file_name": "''", "file_size": "'0B'", "av_data": "NULL",
}  # fmt: skip
_NO_FILE = ("", "", "0B")
_PIECE_BYTES = 1 << 17
_UNSENT: tuple[int, int | None] = (0, None)  # status, send_at

Row = tuple[Any, ...]


def _insert(bound: int, rows: int) -> str:
    """A text that is bound costs a copy, and a None, to which sqlite3 looks for an adapter, twice as much.

    Rows that share a statement find their place in the tables faster. What one of them is refused for ends the
    transaction: else SQLite would copy each page first, to be able to take back the statement alone.
    """
    values = ", ".join(["?"] * bound + list(_SOMETIMES.values())[bound - len(_ALWAYS) :])
    conflict = "OR ROLLBACK " if rows > 1 else ""
    names = ", ".join((*_ALWAYS, *_SOMETIMES))
    return f"INSERT {conflict}INTO message ({names}) VALUES {', '.join([f'({values})'] * rows)}"


# By the length of a row: for one, and for so many.
AT_ONCE = 16
_LENGTHS = (len(_ALWAYS), len(_ALWAYS) + 1, len(_ALWAYS) + len(_SOMETIMES))
INSERT_ONE = {length: _insert(length, 1) for length in _LENGTHS}
INSERT_MANY = {length: _insert(length, AT_ONCE) for length in _LENGTHS}

_uuid_of = attrgetter("uuid")
_seq_of = attrgetter("seq")
_ends_of = attrgetter("send_id", "receive_id")


class _Conversations(dict[tuple[str, str], str]):
    """The conversation of a sender and a receiver; most have come before."""

    def __missing__(self, ends: tuple[str, str]) -> str:
        conversation = self[ends] = conversation_id(*ends)
        return conversation


class Chunk:
    """`cursors`: the highest seqs. `receipts`: with the position after their record. `end`: the position after the last
    record. What comes of the messages is there once all `rows` have been read. `seqs`: the last of each conversation.
    `new`: cursors to be opened. `sent`: status and time of what is not among the rows, but was sent."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.end = 0
        self.receipts: list[tuple[int, ProgressRecord]] = []
        self.seqs: dict[str, int] = {}
        self.new: list[tuple[str, str]] = []
        self.sent: dict[int, tuple[int, int]] = {}
        self._messages: list[bytes] = []
        steps: list[ProgressRecord] = []
        for record in records:
            self.end = record.end
            if record.kind == MESSAGES:
                self._messages.append(record.content)
            else:
                progress = read_progress(record.content)
                steps.append(progress)
                if progress.receipts:
                    self.receipts.append((record.end, progress))
        self.cursors = _highest(steps)
        self._marks = _first_marks(steps)

    def rows(self) -> Iterator[list[Row]]:
        """In the order of the log, a few hundred at a time: their memory is then the next ones'."""
        self.seqs, self.new, self.sent = {}, [], dict(self._marks)
        conversation_of = _Conversations()
        for content in _pieces(self._messages):
            messages = read_messages(content)
            conversations = list(map(conversation_of.__getitem__, map(_ends_of, messages)))
            seqs = list(map(_seq_of, messages))
            self.seqs.update(zip(conversations, seqs, strict=True))
            if 1 in seqs:
                self.new += _new_cursors(conversations, seqs)
            yield _rows(messages, conversations, map(self.sent.pop, map(_uuid_of, messages), repeat(_UNSENT)))


def _pieces(contents: list[bytes]) -> Iterator[bytes]:
    start = size = 0
    for number, content in enumerate(contents, 1):
        size += len(content)
        if size >= _PIECE_BYTES or number == len(contents):
            yield join_messages(contents[start:number])
            start, size = number, 0


def _new_cursors(conversations: list[str], seqs: list[int]) -> list[tuple[str, str]]:
    """A new 1:1 conversation is someone's to catch up with from its first message on."""
    return [
        (user, conversation)
        for conversation, seq in zip(conversations, seqs, strict=True)
        if seq == 1
        for user in sorted(set(participants(conversation) or ()))
    ]


def _first_marks(steps: list[ProgressRecord]) -> dict[int, tuple[int, int]]:
    marks: dict[int, tuple[int, int]] = {}
    for progress in reversed(steps):
        marks.update(zip(progress.sent, repeat((1, progress.at))))
    return marks


def _highest(steps: list[ProgressRecord]) -> dict[tuple[str, str], tuple[int, int, int]]:
    pushed: dict[str, dict[str, int]] = {}
    for progress in steps:
        for conversation, seqs in progress.pushed.items():
            if isinstance(seqs, int):
                user, _, conversation = conversation.partition(" ")
                seqs = {user: seqs}
            if highest := pushed.get(conversation):
                for user, seq in seqs.items():
                    if seq > highest.get(user, 0):
                        highest[user] = seq
            else:
                pushed[conversation] = seqs
    cursors = {(user, conversation): (seq, 0, 0) for conversation, seqs in pushed.items() for user, seq in seqs.items()}
    for progress in steps:
        for user, conversation, sent, delivered, read in progress.cursors:
            first, second, third = cursors.get((user, conversation), (0, 0, 0))
            cursors[user, conversation] = (max(first, sent), max(second, delivered), max(third, read))
    return cursors


def _rows(
    messages: list[LoggedMessage], conversations: list[str], marks: Iterable[tuple[int, int | None]]
) -> list[Row]:
    rows: list[Row] = [
        (
            message.uuid,
            conversation,
            message.seq,
            message.session_id,
            message.type,
            message.content,
            message.send_id,
            message.send_name,
            message.send_avatar,
            message.receive_id,
            status,
            message.created_ms,
            at,
        )
        for message, conversation, (status, at) in zip(messages, conversations, marks, strict=True)
    ]
    for number, message in enumerate(messages):
        file = (message.file_type, message.file_name, message.file_size)
        if message.url or message.av_data or file != _NO_FILE:
            rows[number] += (message.client_msg_id or None, message.url, *file, message.av_data or None)
        elif message.client_msg_id:
            rows[number] += (message.client_msg_id,)
    return rows
