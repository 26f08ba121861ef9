"""Log: what a node has accepted, in the order in which it did, in files that are only appended to.

A *position* counts the bytes of all records since the log began; it never goes back. A segment is one file: a head
that names the log and the position of the segment's first byte, then records. A record is its size, a checksum over
the rest, its kind and its content. What ends in the middle of a record, or does not have its checksum, was never
acknowledged: opening cuts it off, and keeps the piece beside the log for whoever wants to look at it.
"""

from __future__ import annotations

import contextlib
import os
from io import FileIO
from pathlib import Path
from threading import Thread

import structlog

from kama.server.store.log_reading import HEAD, MAGIC, RECORD, Segment, checksum, find_segments, whole_records
from kama.server.store.whole_file import write_whole

log = structlog.get_logger("kama.message_log")

_SEGMENT_BYTES = 64 << 20
_flush = getattr(os, "fdatasync", os.fsync)  # macOS has no other than fsync


class Log:
    """The writing end; one process has it. `sync` is for whoever promises more than this process's own end.

    Methods that write raise OSError, and then leave the log as it was.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = _SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._id = b""
        self._file: FileIO | None = None
        self._finishing: Thread | None = None
        self._start = 0
        self._is_ragged = False
        self.end = 0

    def open(self, log_id: bytes, folded: int) -> int:
        """`folded`: the position that the store has reached. Raises LogBroken.

        Gives the position to fold from: a later one, where what was between is lost. Afterwards `end` is the position
        after the last whole record.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._id = log_id
        segments = [segment for segment in find_segments(self._folder, log_id) if segment.end > folded]
        begin = max([folded, *(segment.start for segment in segments[:1])])
        if begin > folded:
            log.error(
                "the log begins after what the store has: what was between is lost, as after a power cut",
                stored_up_to=folded,
                log_begins_at=begin,
            )
        self.end = self._cut_torn(segments, begin)
        self._begin_segment(self.end)
        return begin

    def _cut_torn(self, segments: list[Segment], begin: int) -> int:
        """The position after the last whole record; what comes after it is put aside.

        At least `begin`: a power cut may have taken the end of a log that the store had already.
        """
        end = begin
        for number, segment in enumerate(segments):
            for record in whole_records(segment, end):
                end = record.end
            if end < segment.end or _follows_no_more(segments, number):
                self._put_aside(segment, end, segments[number + 1 :])
                break
        return end

    def _put_aside(self, torn: Segment, end: int, later: list[Segment]) -> None:
        if end < torn.end:
            with torn.path.open("r+b") as file:
                file.seek(HEAD.size + end - torn.start)
                (self._folder / f"{end:020}.torn").write_bytes(file.read())
                file.truncate(HEAD.size + end - torn.start)
            log.warning("the log ended in the middle of a record: cut off", position=end, bytes=torn.end - end)
        for segment in later:
            log.error("a part of the log comes after a gap: put aside", file=segment.path.name)
            segment.path.rename(segment.path.with_suffix(".gap"))

    def append(self, kind: int, content: bytes) -> int:
        """Gives the position after the record. It is with the system then, and outlives this process."""
        if self._is_ragged:
            self._cut_back()
        if self.end - self._start >= self._segment_bytes:
            self._begin_segment(self.end)
        size = len(content)
        record = RECORD.pack(size, checksum(kind, content), kind) + content
        self._is_ragged = True
        written = self._open_file.write(record)
        if written < len(record):
            self._cut_back()
            raise OSError(f"the system took {written} of {len(record)} bytes of a log record: is the disk full?")
        self._is_ragged = False
        self.end += len(record)
        return self.end

    def sync(self) -> None:
        """Until the disk has what was appended. Blocks: for a thread."""
        self._wait_for_finished()
        _flush(self._open_file.fileno())

    @property
    def _open_file(self) -> FileIO:
        if self._file is None:
            raise RuntimeError("the log is not open: open() it first")
        return self._file

    def take_back(self, end: int) -> None:
        """Undo what was appended after this position, of which nobody was told."""
        self.end = end
        self._is_ragged = True

    def _cut_back(self) -> None:
        self._open_file.truncate(HEAD.size + self.end - self._start)
        self._is_ragged = False

    def _begin_segment(self, start: int) -> None:
        path = self._folder / f"{start:020}.log"
        write_whole(path, HEAD.pack(MAGIC, self._id, start))
        before, self._file, self._start = self._file, FileIO(path, "ab"), start
        if before is not None:
            # In a thread: the disk takes as long for it as for all that is in it, and nobody need wait but who syncs.
            self._wait_for_finished()
            self._finishing = Thread(target=_finish, args=[before], name="full log segment")
            self._finishing.start()

    def _wait_for_finished(self) -> None:
        if self._finishing is not None:
            self._finishing.join()

    def forget(self, position: int) -> None:
        """Remove the segments that end at or before it."""
        for segment in find_segments(self._folder, self._id):
            if segment.end <= position and segment.start < self._start:
                segment.path.unlink()

    def close(self) -> None:
        self._wait_for_finished()
        if self._file is not None:
            self._file.close()
            self._file = None


def _finish(full: FileIO) -> None:
    with contextlib.suppress(OSError):
        _flush(full.fileno())
    full.close()


def _follows_no_more(segments: list[Segment], number: int) -> bool:
    """Whether the next segment is not the one that goes on where this one ends."""
    return number + 1 < len(segments) and segments[number + 1].start != segments[number].end
