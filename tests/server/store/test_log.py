"""Log: what was appended is there after any end of the process, up to the last whole record, and nothing else is."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import no_file_longer_than
from structlog.testing import capture_logs

from kama.server.store import log as log_module
from kama.server.store import log_reading
from kama.server.store.log import Log
from kama.server.store.log_reading import LogBroken, read_log

ID = b"the log's own id"
Written = tuple[int, bytes]
OpenLog = Callable[..., Log]


class Opened(contextlib.closing[Log]):
    """A log that is open, and closed with the block."""

    def __init__(self, folder: Path, folded: int = 0, segment_bytes: int = 1 << 20) -> None:
        log = Log(folder, segment_bytes=segment_bytes)
        log.open(ID, folded)
        super().__init__(log)


@pytest.fixture
def open_log() -> Iterator[OpenLog]:
    """Opens logs, closes them after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *where, **options: stack.enter_context(Opened(*where, **options))


def records_in(folder: Path, end: int, start: int = 0) -> list[Written]:
    return [(record.kind, record.content) for record in read_log(folder, ID, start, end)]


def segments_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


# --- appending and reading


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=6), max_size=4),
    st.integers(1, 100),
    st.integers(1, 100),
)
def test_what_was_appended_is_read_back_whatever_the_segments_and_blocks_and_restarts(
    runs: list[list[Written]], segment_bytes: int, block_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_reading, "_BLOCK", block_bytes)
        folder = Path(name)
        expected: list[Written] = []
        ends = [0]
        for records in runs:
            with Opened(folder, segment_bytes=segment_bytes) as log:
                assert log.end == ends[-1]
                for kind, content in records:
                    ends.append(log.append(kind, content))
                    expected.append((kind, content))
        assert ends == sorted(set(ends)), "positions only grow"
        assert [record.end for record in read_log(folder, ID, 0, ends[-1])] == ends[1:]
        for number, start in enumerate(ends):
            assert records_in(folder, ends[-1], start) == expected[number:]
            assert records_in(folder, start) == expected[:number]


def test_a_full_segment_is_followed_by_one_that_begins_where_it_ends(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path, segment_bytes=50)
    ends = [log.append(1, b"x" * 30) for _ in range(6)]
    assert [int(path.stem) for path in segments_in(tmp_path)] == [0, ends[1], ends[3]]


class Disk:
    """Takes a segment only once it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may = threading.Event()
        self.slow_with = -1
        self.taken: list[int] = []
        monkeypatch.setattr(log_module, "_flush", self._flush)

    def _flush(self, fd: int) -> None:
        assert fd != self.slow_with or self.may.wait(10)
        self.taken.append(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.may.set()


def fill_segment(log: Log, disk: Disk) -> tuple[int, int]:
    """The disk is slow with the segment that is full; gives its descriptor and the next one's."""
    log.append(1, b"fills it")
    full = disk.slow_with = log._open_file.fileno()
    log.append(1, b"is in the next")
    return full, log._open_file.fileno()


def test_who_appends_does_not_wait_until_the_disk_has_a_full_segment(
    tmp_path: Path, open_log: OpenLog, disk: Disk
) -> None:
    fill_segment(open_log(tmp_path, segment_bytes=1), disk)
    assert disk.taken == []


def test_who_wants_it_on_the_disk_waits_for_the_full_segment_too(tmp_path: Path, open_log: OpenLog, disk: Disk) -> None:
    log = open_log(tmp_path, segment_bytes=1)
    full, current = fill_segment(log, disk)
    threading.Timer(0.1, disk.may.set).start()
    log.sync()
    assert disk.taken == [full, current]


def test_what_is_not_there_cannot_be_read(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    end = log.append(1, b"x")
    with pytest.raises(LogBroken, match=f"expected records up to position {end + 1} .*, got up to {end}"):
        records_in(tmp_path, end + 1)


def test_it_must_be_open_to_be_written(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.close()
    with pytest.raises(RuntimeError, match="not open"):
        log.append(1, b"x")


# --- forgetting


def test_it_forgets_what_is_folded_and_nothing_else(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path, segment_bytes=1)
    ends = [log.append(1, b"%d" % number) for number in range(5)]
    log.forget(ends[2] - 1)
    assert [int(path.stem) for path in segments_in(tmp_path)] == [ends[1], ends[2], ends[3]]
    assert records_in(tmp_path, ends[4], ends[1]) == [(1, b"2"), (1, b"3"), (1, b"4")]


def test_what_is_forgotten_while_another_process_looks_for_segments_does_not_stop_it(
    tmp_path: Path, open_log: OpenLog
) -> None:
    log = open_log(tmp_path, segment_bytes=1)
    ends = [log.append(1, b"%d" % number) for number in range(3)]
    log.forget(ends[0])
    (tmp_path / f"{0:020}.log").symlink_to("gone")  # in the list of files, and gone when it is opened
    assert records_in(tmp_path, ends[2], ends[0]) == [(1, b"1"), (1, b"2")]


def test_it_never_forgets_the_segment_that_it_writes_to(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path)
    log.forget(log.append(1, b"x"))
    log.append(1, b"y")
    assert records_in(tmp_path, log.end) == [(1, b"x"), (1, b"y")]


# --- the end of the process in the middle of a record

RECORDS = [(1, b"first"), (2, b""), (1, b"the last one")]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[int]]:
    """A log with RECORDS in one segment, and the positions around them."""
    folder = tmp_path / "log"
    with Opened(folder) as log:
        ends = [0, *(log.append(kind, content) for kind, content in RECORDS)]
    return folder, ends


def damaged(folder: Path, ends: list[int], content: bytes) -> None:
    """Opens a copy of the log whose only segment has this content: whole records stay, and the log goes on."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    (original,) = segments_in(folder)
    head = original.stat().st_size - ends[-1]
    whole = content[head:]
    undamaged = original.read_bytes()[head:]
    kept = max(number for number, end in enumerate(ends) if whole[:end] == undamaged[:end] and len(whole) >= end)
    (copy / original.name).write_bytes(content)
    with capture_logs() as logs, Opened(copy) as log:
        assert log.end == ends[kept]
        log.append(7, b"goes on")
    cut = whole[ends[kept] :]
    assert [path.read_bytes() for path in copy.glob("*.torn")] == ([cut] if cut else [])
    assert [entry["event"] for entry in logs] == (["the log ended in the middle of a record: cut off"] if cut else [])
    assert records_in(copy, log.end) == [*RECORDS[:kept], (7, b"goes on")]
    with Opened(copy) as again:
        assert again.end == log.end, "and the next opening finds the same"


def test_a_log_that_was_cut_anywhere_has_its_whole_records(written: tuple[Path, list[int]]) -> None:
    folder, ends = written
    content = segments_in(folder)[0].read_bytes()
    for size in range(len(content) - ends[-1], len(content) + 1):
        damaged(folder, ends, content[:size])


def test_a_log_with_one_wrong_bit_anywhere_has_the_records_before_it(written: tuple[Path, list[int]]) -> None:
    folder, ends = written
    content = segments_in(folder)[0].read_bytes()
    for place in range(len(content) - ends[-1], len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        damaged(folder, ends, bytes(flipped))


def test_what_comes_after_a_gap_is_put_aside_and_told(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path, segment_bytes=1)
    ends = [log.append(1, b"%d" % number) for number in range(3)]
    log.close()
    middle = segments_in(tmp_path)[1]
    middle.write_bytes(middle.read_bytes()[:-1])
    with capture_logs() as logs:
        log = open_log(tmp_path)
    assert log.end == ends[0]
    assert [int(path.stem) for path in tmp_path.glob("*.gap")] == [ends[1]]
    assert {entry["log_level"] for entry in logs} == {"warning", "error"}
    log.append(1, b"goes on")
    assert records_in(tmp_path, log.end) == [(1, b"0"), (1, b"goes on")]


def test_what_comes_after_a_segment_that_is_gone_is_put_aside(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path, segment_bytes=1)
    ends = [log.append(1, b"%d" % number) for number in range(3)]
    log.close()
    segments_in(tmp_path)[1].unlink()
    with capture_logs():
        log = open_log(tmp_path)
    assert log.end == ends[0]
    assert [int(path.stem) for path in tmp_path.glob("*.gap")] == [ends[1]]


# --- a store and a log that were parted


def test_a_store_that_is_ahead_of_its_log_goes_on_where_it_is(tmp_path: Path, open_log: OpenLog) -> None:
    """A power cut may take the end of a log whose store was safe already."""
    log = open_log(tmp_path)
    end = log.append(1, b"lost to the store's lead")
    log.close()
    log = open_log(tmp_path, folded=end + 1000)
    assert log.end == end + 1000
    log.append(1, b"goes on")
    log.close()
    assert records_in(tmp_path, log.end, end + 1000) == [(1, b"goes on")]
    assert open_log(tmp_path, folded=end + 1000).end == log.end


def test_a_log_that_begins_after_what_the_store_has_is_told_and_goes_on(tmp_path: Path, open_log: OpenLog) -> None:
    log = open_log(tmp_path, segment_bytes=1)
    first = log.append(1, b"lost")
    log.append(1, b"kept")
    log.close()
    segments_in(tmp_path)[0].unlink()
    with capture_logs() as logs:
        log = open_log(tmp_path)
    (entry,) = logs
    assert (entry["log_level"], entry["stored_up_to"], entry["log_begins_at"]) == ("error", 0, first)
    log.append(1, b"goes on")
    assert records_in(tmp_path, log.end) == [(1, b"kept"), (1, b"goes on")]


def test_the_log_of_another_database_is_refused(tmp_path: Path, open_log: OpenLog) -> None:
    open_log(tmp_path).close()
    other = b"some others' log"
    with pytest.raises(LogBroken, match=f"expected the log {other.hex()} of this database, got {ID.hex()}"):
        Log(tmp_path).open(other, 0)


@pytest.mark.parametrize("content", [b"", b"kamalog", b"a letter to a friend, put into the wrong drawer"])
def test_a_file_that_is_no_segment_is_refused_and_left_alone(tmp_path: Path, content: bytes, open_log: OpenLog) -> None:
    (tmp_path / "0.log").write_bytes(content)
    with pytest.raises(LogBroken, match="expected a segment of a log, got another file"):
        open_log(tmp_path)
    assert (tmp_path / "0.log").read_bytes() == content


# --- a full disk


@pytest.mark.parametrize("room", [0, 1, 8, 9, 10, 18, 19])
def test_what_does_not_fit_is_refused_and_leaves_the_log_as_it_was(
    tmp_path: Path, room: int, open_log: OpenLog
) -> None:
    log = open_log(tmp_path)
    before = log.append(1, b"before")
    size = segments_in(tmp_path)[0].stat().st_size
    with no_file_longer_than(size + room):
        for _ in range(2):
            with pytest.raises(OSError):
                log.append(1, b"0123456789a")
    assert log.end == before
    log.append(1, b"after")
    log.close()
    assert records_in(tmp_path, log.end) == [(1, b"before"), (1, b"after")]
    assert open_log(tmp_path).end == log.end


def test_what_was_cut_short_is_no_record_after_a_kill(tmp_path: Path, open_log: OpenLog) -> None:
    """Nobody has appended since, and so nobody has cut it off."""
    log = open_log(tmp_path)
    end = log.append(1, b"before")
    with no_file_longer_than(segments_in(tmp_path)[0].stat().st_size + 15), pytest.raises(OSError):
        log.append(1, b"0123456789a")
    assert open_log(tmp_path).end == end
    assert records_in(tmp_path, end) == [(1, b"before")]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.binary(max_size=40), st.none() | st.integers(0, 60)), max_size=12), st.integers(1, 90))
def test_only_what_was_appended_is_there_however_often_the_disk_is_full(
    plan: list[tuple[bytes, int | None]], segment_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        appended: list[Written] = []
        with Opened(folder, segment_bytes=segment_bytes) as log:
            for content, room in plan:
                limit = 1 << 30 if room is None else 32 + room
                with no_file_longer_than(limit), contextlib.suppress(OSError):
                    log.append(1, content)
                    appended.append((1, content))
        assert records_in(folder, log.end) == appended
        with Opened(folder) as again:
            assert again.end == log.end


# --- what was taken back


@pytest.mark.parametrize("segment_bytes", [1, 1 << 20], ids=["in a new segment", "in the same segment"])
def test_what_was_taken_back_is_written_over(tmp_path: Path, segment_bytes: int, open_log: OpenLog) -> None:
    log = open_log(tmp_path, segment_bytes=segment_bytes)
    before = log.append(1, b"before")
    log.append(1, b"nobody was told of this")
    log.take_back(before)
    log.append(1, b"after")
    log.close()
    assert records_in(tmp_path, log.end) == [(1, b"before"), (1, b"after")]
