"""Chunk: what is folded in one transaction, put together so that most rows are written once.

Everything here happens for every message, on a core that the node may need: what a record has many of is taken in whole
lists, by what Python has in C.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from operator import attrgetter
from typing import Any

from kama.protocol import conversation_id, participants
from kama.server.store.log_reading import Record
from kama.server.store.log_records import MESSAGES, LoggedMessage, ProgressRecord, read_messages, read_progress

# What only some messages have comes last: the row of another ends before it, and the statement has the rest.
_ALWAYS = (
    "uuid", "conversation", "seq", "session_id", "type", "content", "send_id", "send_name", "send_avatar",
    "receive_id", "status", "created_at", "send_at",
)  # fmt: skip
_SOMETIMES = {
    "client_msg_id": "NULL", "url": "''", "file_type": "''", "file_name": "''", "file_size": "'0B'", "av_data": "NULL",
}  # fmt: skip
_NO_FILE = ("", "", "0B")
_UNSENT: tuple[int, int | None] = (0, None)  # status, send_at

Row = tuple[Any, ...]


def _insert(bound: int) -> str:
    """A text that is bound costs a copy, and a None, to which sqlite3 looks for an adapter, twice as much."""
    values = ["?"] * bound + list(_SOMETIMES.values())[bound - len(_ALWAYS) :]
    return f"INSERT INTO message ({', '.join((*_ALWAYS, *_SOMETIMES))}) VALUES ({', '.join(values)})"


# By the length of the row.
INSERTS = {len(_ALWAYS) + more: _insert(len(_ALWAYS) + more) for more in (0, 1, len(_SOMETIMES))}

_uuid_of = attrgetter("uuid")
_seq_of = attrgetter("seq")
_ends_of = attrgetter("send_id", "receive_id")


class _Conversations(dict[tuple[str, str], str]):
    """The conversation of a sender and a receiver; most have come before."""

    def __missing__(self, ends: tuple[str, str]) -> str:
        conversation = self[ends] = conversation_id(*ends)
        return conversation


class Chunk:
    """`rows` are in the order of the log. `seqs`: the last of each conversation. `new`: cursors to be opened.
    `sent`: when what is not among the rows was sent. `cursors`: the highest seqs. `receipts`: with the position after
    their record. `end`: the position after the last record."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.end = 0
        self.receipts: list[tuple[int, ProgressRecord]] = []
        messages: list[LoggedMessage] = []
        steps: list[ProgressRecord] = []
        for record in records:
            self.end = record.end
            if record.kind == MESSAGES:
                messages += read_messages(record.content)
            else:
                progress = read_progress(record.content)
                steps.append(progress)
                if progress.receipts:
                    self.receipts.append((record.end, progress))
        conversations = list(map(_Conversations().__getitem__, map(_ends_of, messages)))
        seqs = list(map(_seq_of, messages))
        self.seqs = dict(zip(conversations, seqs, strict=True))
        self.new = _new_cursors(conversations, seqs) if 1 in seqs else []
        self.cursors = _highest(steps)
        marks = _first_marks(steps)
        self.rows = _rows(messages, conversations, marks)
        known = set(map(_uuid_of, messages))
        self.sent = {uuid: marks[uuid][1] for uuid in marks.keys() - known}


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
    pushed: dict[str, int] = {}
    highest = pushed.get
    for progress in steps:
        for key, seq in progress.pushed.items():
            if seq > highest(key, 0):
                pushed[key] = seq
    cursors: dict[tuple[str, str], tuple[int, int, int]] = {}
    for key, seq in pushed.items():
        user, _, conversation = key.partition(" ")
        cursors[user, conversation] = (seq, 0, 0)
    for progress in steps:
        for user, conversation, sent, delivered, read in progress.cursors:
            first, second, third = cursors.get((user, conversation), (0, 0, 0))
            cursors[user, conversation] = (max(first, sent), max(second, delivered), max(third, read))
    return cursors


def _rows(messages: list[LoggedMessage], conversations: list[str], marks: dict[int, tuple[int, int]]) -> list[Row]:
    mark_of = map(marks.get, map(_uuid_of, messages), repeat(_UNSENT))
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
        for message, conversation, (status, at) in zip(messages, conversations, mark_of, strict=True)
    ]
    for number, message in enumerate(messages):
        file = (message.file_type, message.file_name, message.file_size)
        if message.url or message.av_data or file != _NO_FILE:
            rows[number] += (message.client_msg_id or None, message.url, *file, message.av_data or None)
        elif message.client_msg_id:
            rows[number] += (message.client_msg_id,)
    return rows
