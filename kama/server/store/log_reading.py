"""The log's files, as they are read: by the node that goes on with them, and by the process that folds them.

That process starts while somebody may be waiting for it: nothing is imported here that takes its time.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NamedTuple

MAGIC = b"kamalog1"
HEAD = Struct("<8s16sQ")  # what it is, the log's id, the position of the first byte after this head
RECORD = Struct("<IIB")  # bytes of the content, CRC-32 of kind and content, kind
_CONTENT_MAX = 1 << 30
_BLOCK = 1 << 16  # larger ones are memory that the system has to give anew each time
_CRC_OF_KIND = [zlib.crc32(bytes([kind])) for kind in range(256)]


class LogBroken(Exception):
    """The files are not the log that was expected here."""


class Record(NamedTuple):
    """`end` is the position after it."""

    kind: int
    content: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Segment:
    path: Path
    start: int
    size: int  # of its records, whole or not

    @property
    def end(self) -> int:
        return self.start + self.size


def checksum(kind: int, content: bytes) -> int:
    return zlib.crc32(content, _CRC_OF_KIND[kind])


def read_log(folder: Path, log_id: bytes, start: int, end: int) -> Iterator[Record]:
    """The records from one position to another, both of which are between records. Raises LogBroken."""
    for segment in find_segments(folder, log_id):
        if segment.start < end and segment.end > start:
            for record in whole_records(segment, max(start, segment.start), end):
                start = record.end
                yield record
    if start < end:
        raise LogBroken(f"expected records up to position {end} in {folder}, got up to {start}")


def find_segments(folder: Path, log_id: bytes) -> list[Segment]:
    """In their order. Raises LogBroken for one of another log."""
    found: list[Segment] = []
    for path in sorted(folder.glob("*.log")):
        with contextlib.suppress(FileNotFoundError):  # the node may have forgotten it since it was listed
            found.append(_segment(path, log_id))
    return found


def _segment(path: Path, log_id: bytes) -> Segment:
    with path.open("rb") as file:
        head = file.read(HEAD.size)
        size = file.seek(0, os.SEEK_END)
    if len(head) < HEAD.size or not head.startswith(MAGIC):
        raise LogBroken(f"expected a segment of a log, got another file: {path}")
    _, its_log, start = HEAD.unpack(head)
    if its_log != log_id:
        raise LogBroken(f"expected the log {log_id.hex()} of this database, got {its_log.hex()}: {path}")
    return Segment(path, start, size - HEAD.size)


def whole_records(segment: Segment, position: int, end: int | None = None) -> Iterator[Record]:
    """From that position on; up to `end`, where it is between records, or to the last one that is whole."""
    end = segment.end if end is None else min(end, segment.end)
    with segment.path.open("rb", buffering=0) as file:
        file.seek(HEAD.size + position - segment.start)
        block, at = b"", 0  # what is read and not given yet begins at `at`
        needed = RECORD.size
        while True:
            there = len(block) - at
            if there < needed:
                more = file.read(min(end - position - there, max(needed, _BLOCK)))
                if not more:
                    return
                block, at = block[at:] + more, 0
                continue
            size, crc, kind = RECORD.unpack_from(block, at)
            if size > _CONTENT_MAX:
                return
            needed = RECORD.size + size
            if there < needed:
                continue
            content = block[at + RECORD.size : at + needed]
            if checksum(kind, content) != crc:
                return
            at += needed
            position += needed
            needed = RECORD.size
            yield Record(kind, content, position)
