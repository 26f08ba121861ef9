"""Recordings: what a monitor was told, in a file: gzip, a JSON document on each line.

    {"kama_recording":1,"kama":"0.1.0","at_ms":…,"redacted":false}        the first line
    {"at_ms":…,"source":"http://…","frame":{"type":"delta",…}}              a frame, as the source sent it
    {"at_ms":…,"seek":[{"at_ms":…,"source":…,"frame":…},…]}                all that was known then: begin here

A line of the last kind comes first, and again every ten seconds.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct, field

from kama.errors import SettingsError
from kama.monitor.frames import Frame, Item, Rewound

VERSION = 1
_MAX_UNPACKED = 4 << 30
_CHUNK = 4096  # what is read with a spoilt byte is lost
GZIP = 31  # zlib's word for gzip with its largest window
# A seek begins this long before its target, so that the lists of events and messages are not empty there.
_RUN_UP_MS = 60_000


class Head(Struct):
    """The first line."""

    kama_recording: int
    kama: str = ""
    at_ms: int = 0
    redacted: bool = False


class Line(Struct, omit_defaults=True):
    """A frame that came, or in `seek` all that was known then."""

    at_ms: int
    source: str = ""
    frame: Frame | None = None
    seek: list[Line] = field(default_factory=list)


class _Any(Struct):
    """An object of whatever kind."""


class _Stamp(Struct):
    """What a line has to tell before it is wanted."""

    at_ms: int
    seek: list[_Any] | None = None


_decode_line = msgspec.json.Decoder(Line).decode
_decode_stamp = msgspec.json.Decoder(_Stamp).decode


class Recording:
    """A recording to read, from any place. A file that ends in the middle of a line ends before that line.

    Raises SettingsError for a file that is none, or of a newer kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object is
        self._offsets, self._times, self._seeks = array("q"), array("q"), array("q")
        try:
            self.head = self._index(_unpack(path))
        except BaseException:
            self._lines.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()

    def __len__(self) -> int:
        """How many places there are: `items_at(0)` to `items_at(len - 1)`."""
        return len(self._times)

    @property
    def start_ms(self) -> int:
        return self._times[0]

    @property
    def end_ms(self) -> int:
        return self._times[-1]

    @property
    def is_redacted(self) -> bool:
        return self.head.redacted

    def moment(self, clock: str) -> int:
        """Unix ms of the first moment at which clocks here show that time, `HH:MM:SS`. Raises ValueError."""
        try:
            wanted = time.strptime(clock, "%H:%M:%S")
        except ValueError:
            raise ValueError(f"expected a time such as 14:31:05, got {clock[:24] or 'nothing'}") from None
        start = self.start_ms // 1000
        local = time.localtime(start)
        behind = (wanted.tm_hour - local.tm_hour) * 3600 + (wanted.tm_min - local.tm_min) * 60
        behind += wanted.tm_sec - local.tm_sec
        return (start + behind % 86_400) * 1000

    def time_at(self, place: int) -> int:
        return self._times[place]

    def place_at(self, at_ms: int) -> int:
        """The first place after that moment."""
        return bisect_right(self._times, at_ms)

    def item_at(self, place: int) -> Item | None:
        """The frame at a place; None where there is what was known then instead."""
        line = self._line(place)
        return Item(line.source, line.frame, line.at_ms) if line.frame is not None else None

    def items_before(self, place: int) -> Iterator[Item]:
        """All that it takes to know what was known just before that place. Begins with Rewound."""
        yield Item("", Rewound(), self._times[0])
        wanted_ms = self._times[max(0, min(place, len(self)) - 1)] - _RUN_UP_MS
        start = self._seeks[max(0, bisect_right(self._seeks, self.place_at(wanted_ms) - 1) - 1)]
        for known in self._line(start).seek:
            if known.frame is not None:
                yield Item(known.source, known.frame, known.at_ms)
        for at in range(start, min(place, len(self))):
            item = self.item_at(at)
            if item is not None:
                yield item

    def _line(self, place: int) -> Line:
        self._lines.seek(self._offsets[place])
        try:
            return _decode_line(self._lines.readline())
        except msgspec.MsgspecError as error:
            raise SettingsError(f"expected frames in {self.path}, got something else: {error}") from None

    def _index(self, lines: Iterable[bytes]) -> Head:
        head: Head | None = None
        for data in lines:
            try:
                if head is None:
                    head = _checked_head(data, self.path)
                    continue
                stamp = _decode_stamp(data)
            except msgspec.MsgspecError:
                break
            if stamp.seek is not None:
                self._seeks.append(len(self._times))
            elif not self._seeks:
                break
            self._offsets.append(self._lines.tell())
            self._times.append(stamp.at_ms)
            self._lines.write(data)
        if head is None or not self._times:
            raise _not_a_recording(self.path)
        return head


def _checked_head(data: bytes, path: Path) -> Head:
    try:
        head = msgspec.json.decode(data, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _not_a_recording(path) from None
    if head.kama_recording != VERSION:
        raise SettingsError(
            f"expected a recording of version {VERSION} in {path}, got version {head.kama_recording}, "
            f"written by kama {head.kama[:24]}"
        )
    return head


def _not_a_recording(path: Path) -> SettingsError:
    return SettingsError(f"expected a recording of kama monitor in {path}, got something else")


def _unpack(path: Path) -> Iterator[bytes]:
    """The whole lines of the file. Where it is cut off or spoilt, they end."""
    unpacker = zlib.decompressobj(wbits=GZIP)
    rest, total = b"", 0
    try:
        with path.open("rb") as file:
            while packed := file.read(_CHUNK):
                try:
                    rest += unpacker.decompress(packed)
                except zlib.error:
                    return
                *lines, rest = rest.split(b"\n")
                total += sum(map(len, lines))
                if total > _MAX_UNPACKED or len(rest) > _MAX_UNPACKED // 16:
                    raise SettingsError(f"expected a recording of at most {_MAX_UNPACKED >> 30} GiB in {path}")
                yield from (line + b"\n" for line in lines)
    except OSError as error:
        raise SettingsError(f"cannot read the recording {path}: {error.strerror}") from None
