"""Recorder: writes what a monitor is told into a file, as `recording` describes it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from kama import __version__
from kama.errors import SettingsError
from kama.monitor.frames import Frame, Item
from kama.monitor.recording import GZIP, VERSION, Head, Line
from kama.monitor.redaction import Redactor
from kama.monitor.store import MonitorStore
from kama.monitor.watched import Watched
from kama.monitor_protocol import Events, History, Result, Snap

SEEK_EVERY_MS = 10_000
FLUSH_EVERY_MS = 1_000
MAX_BYTES = 256 << 20
_EVENTS_KEPT = 500
_CLOSED_KEPT = 200

_encode = msgspec.json.Encoder().encode


class Recorder:
    """Writes a new file that only its owner can read. `record` each item after `store` took it.

    `redact`: without names, addresses and texts. What was written a second ago survives the end of this process.
    It stops by itself at `max_bytes` of file, or when it cannot write: `stopped` says why then.

    Raises SettingsError when the file exists or cannot be made.
    """

    def __init__(
        self, path: Path, store: MonitorStore, now_ms: int, *, redact: bool = False, max_bytes: int = MAX_BYTES
    ) -> None:
        self._store = store
        self._redactor = Redactor() if redact else None
        self._max_bytes = max_bytes
        self._packer = zlib.compressobj(level=3, wbits=GZIP)
        self._file = os.fdopen(_create(path), "wb", buffering=0)
        self._at_ms = now_ms
        self._flushed_ms = now_ms
        self._seek_ms = now_ms
        self.path = path
        self.started_ms = now_ms
        self.bytes = 0
        self.stopped = ""
        head = Head(VERSION, __version__, now_ms, redact)
        self._write(_encode(head) + b"\n" + self._seek_point(now_ms), flush=True)

    def record(self, item: Item) -> None:
        if self.stopped or isinstance(item.frame, Result):  # whoever asked for it is not there in a replay
            return
        now_ms = self._at_ms = max(self._at_ms, item.at_ms)
        data = self._line(Line(now_ms, item.source, item.frame))
        if now_ms - self._seek_ms >= SEEK_EVERY_MS:
            data += self._seek_point(now_ms)
            self._seek_ms = now_ms
        self._write(data, flush=now_ms - self._flushed_ms >= FLUSH_EVERY_MS)
        if not self.stopped and self.bytes >= self._max_bytes:
            self._stop(f"the recording has reached its {self._max_bytes} bytes")

    def close(self) -> None:
        self._stop("ended")

    def _stop(self, why: str) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(self._packer.flush(zlib.Z_FINISH))
        except OSError as error:
            why = f"cannot write {self.path}: {error.strerror}"
        self._file.close()
        self.stopped = self.stopped or why

    def _write(self, data: bytes, *, flush: bool) -> None:
        packed = self._packer.compress(data)
        if flush:
            packed += self._packer.flush(zlib.Z_SYNC_FLUSH)
            self._flushed_ms = self._at_ms
        try:
            self.bytes += self._file.write(packed) or 0
        except OSError as error:
            self.stopped = f"cannot write {self.path}: {error.strerror}"
            self._file.close()

    def _seek_point(self, now_ms: int) -> bytes:
        lines = [
            Line(watched.frame_ms or now_ms, name, frame)
            for name, watched in self._store.sources.items()
            for frame in _frames_of(self._store, watched)
        ]
        return self._line(Line(now_ms, seek=lines), is_seek=True)

    def _line(self, line: Line, *, is_seek: bool = False) -> bytes:
        if self._redactor is not None:
            line = self._redacted(line, self._redactor)
        data = _encode(line)
        if is_seek and not line.seek:  # nothing was known yet, and that is a place to begin at as well
            data = data[:-1] + b',"seek":[]}'
        return data + b"\n"

    def _redacted(self, line: Line, redactor: Redactor) -> Line:
        return Line(
            line.at_ms,
            redactor.text(line.source),
            redactor.frame(line.frame) if line.frame is not None else None,
            [self._redacted(each, redactor) for each in line.seek],
        )


def _create(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsError(f"expected a new file to record to, got {path}, which exists") from None
    except OSError as error:
        raise SettingsError(f"cannot record to {path}: {error.strerror}") from None


def _frames_of(store: MonitorStore, watched: Watched) -> Iterator[Frame]:
    """Frames after which a store knows of that source what this one knows, and takes the next frame as this one."""
    yield watched.link
    if watched.hello is None:
        return
    yield replace(watched.hello, now_ms=watched.frame_ms + watched.skew_ms)
    yield History(points=store.points(watched.node))
    chain = watched.chain
    if not chain.at_ms:
        return
    events = [event for event in store.events if event.node == watched.node][-_EVENTS_KEPT:]
    yield Events(seq=chain.state_seq - 1, items=events, sampled_out=watched.sampled_out, lost=watched.lost)
    closed = [each for each in store.closed if each.node == watched.node][:_CLOSED_KEPT]
    yield Snap(
        seq=chain.state_seq,
        at_ms=chain.at_ms,
        interval_ms=watched.link.interval_ms,
        nodes=list(watched.nodes.values()),
        clients=list(watched.clients.values()),
        matched=watched.matched,
        total=watched.total,
        closed=closed[::-1],
    )
    between = range(chain.seq, chain.seq + 1) if chain.is_broken else range(chain.state_seq + 1, chain.seq + 1)
    for seq in between:
        yield Events(seq=seq, items=[])
