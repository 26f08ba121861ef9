"""Folding: the database ends as if it had been written directly, however often the folding process is ended."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_builders import AT, ID, Archive, FoldProcess, no_file_longer_than
from server_builders import THROUGH_A_DATABASE

from kama.protocol import Message, MessageType, encode
from kama.server.store import chunk as chunk_module
from kama.server.store import fold as fold_module
from kama.server.store.chunk import AT_ONCE, Chunk
from kama.server.store.fold import Fold
from kama.server.store.log_reading import LogBroken, read_log
from kama.server.store.log_records import PROGRESS, Rise

PAIRS = [("U1", "U2"), ("U2", "U1"), ("U1", "U1"), ("U1", "U3"), ("U1", "G1")]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path)
    yield made
    made.log.close()


# --- what a record does


def test_messages_become_rows_with_their_seqs_and_cursors(archive: Archive) -> None:
    first, second = archive.say(("U1", "U2"), ("U2", "U1"), client_msg_id="c")
    (other,) = archive.say(("U1", "U3"))
    archive.fold()
    assert archive.execute("SELECT uuid, conversation, seq, client_msg_id FROM message ORDER BY uuid") == [
        (int(first.uuid), "U1_U2", 1, "c"),
        (int(second.uuid), "U1_U2", 2, "c"),
        (int(other.uuid), "U1_U3", 1, None),
    ]
    assert archive.execute("SELECT conversation, last_seq FROM conversation ORDER BY 1") == [("U1_U2", 2), ("U1_U3", 1)]
    assert archive.execute("SELECT user_id, conversation, sent_seq FROM cursor ORDER BY 1, 2") == [
        ("U1", "U1_U2", 0), ("U1", "U1_U3", 0), ("U2", "U1_U2", 0), ("U3", "U1_U3", 0),
    ]  # fmt: skip


FILE = {"url": "/f", "file_type": "image/png", "file_name": "f.png", "file_size": "3KB"}
KINDS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "text": ({"content": "hi"}, ("hi", "", "", "", "0B", None, None)),
    "with an id": ({"content": "hi", "client_msg_id": "c"}, ("hi", "", "", "", "0B", None, "c")),
    "text with a link": ({"content": "hi", "url": "/u"}, ("hi", "/u", "", "", "0B", None, None)),
    "file": ({"type": MessageType.FILE, "content": "", **FILE}, ("", *FILE.values(), None, None)),
    "file without size": ({"type": MessageType.FILE, "content": "", "client_msg_id": "c"}, ("", *[""] * 4, None, "c")),
    "signal": ({"type": MessageType.AUDIO_OR_VIDEO, "av_data": "{}"}, ("", "", "", "", "", "{}", None)),
    "empty signal": ({"type": MessageType.AUDIO_OR_VIDEO}, ("", "", "", "", "", None, None)),
}


@pytest.mark.parametrize("order", [[*KINDS], [kind for kind in KINDS for _ in range(2 * AT_ONCE + 1)]])
def test_a_row_has_all_that_its_message_has_whatever_those_beside_it_have(archive: Archive, order: list[str]) -> None:
    said: list[tuple[str, Message]] = []
    common = {"session_id": "S", "send_name": "Ann", "send_avatar": "/a"}
    for number, kind in enumerate(order):
        fields = dict(KINDS[kind][0])
        if "client_msg_id" in fields:
            fields["client_msg_id"] += str(number)
        said += [(kind, message) for message in archive.say(("U1", "U2"), **common, **fields)]
    archive.note(sent=[message for _, message in said[::2]])
    archive.fold()
    rows = archive.execute(
        "SELECT uuid, seq, session_id, send_name, send_avatar, send_id, receive_id, type, created_at, status, send_at, "
        "content, url, file_type, file_name, file_size, av_data, client_msg_id FROM message ORDER BY uuid"
    )
    expected = []
    for number, (kind, message) in enumerate(said):
        *texts, client_msg_id = KINDS[kind][1]
        expected.append((
            *(int(message.uuid), message.seq, "S", "Ann", "/a", "U1", "U2", message.type, message.created_ms),
            *((0, None) if number % 2 else (1, AT)),
            *(*texts, client_msg_id and f"c{number}"),
        ))  # fmt: skip
    assert rows == expected


def test_a_cursor_does_not_go_back(archive: Archive) -> None:
    """A slower connection of the same user says later how far it is."""
    archive.say(("U1", "U2"), ("U1", "U2"))
    for seq in (1, 2, 1):
        archive.note(pushed={"U1_U2": {"U2": seq}})
    archive.fold()
    assert archive.execute("SELECT sent_seq FROM cursor WHERE user_id = 'U2'") == [(2,)]


def test_what_an_earlier_version_noted_moves_the_same_cursors(archive: Archive) -> None:
    first, second = archive.say(("U1", "U2"), ("U1", "U2"))
    cursors = [("U2", "U1_U2", 2, 0, 0), ("U1", "U1_U2", 2, 1, 1)]
    record = (AT, [int(first.uuid), int(second.uuid)], cursors, [("U2", "U1_U2", 2, 1)])
    archive.log.append(PROGRESS, encode(record))
    archive.note(pushed={"U1_U2": {"U2": 1}})
    archive.fold()
    assert archive.execute("SELECT status, send_at FROM message ORDER BY seq") == [(2, AT), (1, AT)]
    assert archive.execute("SELECT * FROM cursor ORDER BY user_id") == [cursors[1], cursors[0]]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_version_between_noted_users_and_conversations_in_one_text(archive: Archive, before: int, after: int) -> None:
    archive.say(("U1", "U2"), ("U1", "U2"))
    archive.log.append(PROGRESS, encode((AT, [], [], [], {"U2 U1_U2": before})))
    archive.note(pushed={"U1_U2": {"U2": after}})
    archive.fold()
    assert archive.execute("SELECT sent_seq FROM cursor WHERE user_id = 'U2'") == [(2,)]


@pytest.mark.parametrize("is_later", [False, True], ids=["in the same transaction", "in a later one"])
def test_what_was_sent_has_its_time_and_a_new_version(archive: Archive, is_later: bool) -> None:
    (message,) = archive.say(("U1", "U2"))
    versions = []
    if is_later:
        archive.fold()
        versions = archive.execute("SELECT version FROM conversation")
    archive.note(sent=[message])
    archive.fold()
    assert archive.execute("SELECT status, send_at FROM message") == [(1, AT)]
    assert archive.execute("SELECT version FROM conversation") != versions


def test_a_receipt_raises_what_others_sent_and_says_what_rose(archive: Archive) -> None:
    first, own, second = archive.say(("U1", "U2"), ("U2", "U1"), ("U1", "U2"))
    archive.note(cursors=[("U2", "U1_U2", 2, 2, 0)], receipts=[("U2", "U1_U2", 2, 2)])
    end = archive.log.end
    (report,) = archive.fold()
    assert archive.execute("SELECT status FROM message ORDER BY seq") == [(2,), (0,), (0,)]
    assert archive.execute("SELECT * FROM cursor WHERE user_id = 'U2'") == [("U2", "U1_U2", 2, 2, 0)]
    assert report.rises == [(end, [Rise(int(first.uuid), "U1_U2", 1, "U1", False, 2, "U2")])]


def test_marks_for_what_was_never_stored_change_nothing(archive: Archive) -> None:
    (message,) = archive.say(("U1", "U2"))
    archive.fold()
    before = archive.seen
    message.uuid = "404"
    archive.note([message], [("U9", "U8_U9", 7, 7, 7)], [("U9", "U8_U9", 3, 7)])
    archive.fold()
    assert archive.seen == before
    assert archive.position == archive.log.end


LEVELS = {"sent": 1, "delivered": 2, "read": 3}
marks = st.tuples(st.sampled_from([*LEVELS]), st.sampled_from(["U1", "U2", "U3"]), st.integers(0, 9))
scripts = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.lists(st.sampled_from(PAIRS), min_size=1, max_size=4)),
        st.tuples(st.just("note"), st.lists(marks, min_size=1, max_size=4)),
    ),
    min_size=1,
    max_size=10,
)


def play(archive: Archive, script: list[tuple[str, list[Any]]]) -> None:
    """Log what the script says: marks and receipts are for messages that are there."""
    said: list[Message] = []
    for act, details in script:
        if act == "say":
            said += archive.say(*details)
            continue
        sent: list[Message] = []
        cursors: dict[tuple[str, str], list[int]] = {}
        receipts: dict[tuple[str, str, int], int] = {}
        for what, user, number in details:
            if not said:
                continue
            message = said[number % len(said)]
            key = "G1" if message.receive_id == "G1" else "_".join(sorted((message.send_id, message.receive_id)))
            levels = cursors.setdefault((user, key), [0, 0, 0])
            for level in range(LEVELS[what]):
                levels[level] = max(levels[level], message.seq)
            if what == "sent":
                sent.append(message)
            else:
                place = (user, key, LEVELS[what])
                receipts[place] = max(message.seq, receipts.get(place, 0))
        pushed: dict[str, dict[str, int]] = {}
        for (user, key), levels in cursors.items():
            if not levels[1]:
                pushed.setdefault(key, {})[user] = levels[0]
        archive.note(
            sent,
            [(user, key, *levels) for (user, key), levels in cursors.items() if levels[1]],  # type: ignore[misc]
            [(user, key, status, seq) for (user, key, status), seq in receipts.items()],
            pushed,
        )


@settings(THROUGH_A_DATABASE, max_examples=40)
@given(scripts)
def test_it_does_not_matter_where_one_transaction_ends_and_the_next_begins(script: list[tuple[str, list[Any]]]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        whole = Archive(Path(name, "whole"))
        stack.callback(whole.log.close)
        play(whole, script)
        apart = whole.beside(Path(name, "apart"))
        assert len(whole.fold()) == 1
        patch.setattr(chunk_module, "_PIECE_BYTES", 1)
        pieces = whole.beside(Path(name, "pieces"))
        assert len(pieces.fold()) == 1
        assert pieces.seen == whole.seen
        patch.setattr(fold_module, "_CHUNK_BYTES", 1)
        assert len(apart.fold()) == len(script)
        assert apart.seen == whole.seen


# --- again, and by whom


def test_what_is_folded_already_is_told_and_left_alone(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    archive.fold()
    before = archive.seen
    (report,) = archive.fold()
    assert (report.folded, archive.seen) == (archive.log.end, before)


def test_a_log_that_is_not_there_is_an_error_and_changes_nothing(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    for path in archive.folder.glob("*.log"):
        path.unlink()
    with pytest.raises(LogBroken):
        archive.fold()
    assert (archive.position, archive.execute("SELECT * FROM message")) == (0, [])


def test_a_message_that_the_database_refuses_is_kept_beside_the_log_and_the_rest_goes_on(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    archive.fold()
    archive.execute("UPDATE message SET seq = 3")
    _, refused, last = archive.say(("U1", "U3"), ("U1", "U2"), ("U1", "U2"), content="kept")
    (refused_seq, last_seq) = (refused.seq, last.seq)
    assert (refused_seq, last_seq) == (2, 3)
    (report,) = archive.fold()
    assert (report.refused, report.folded) == (1, archive.log.end)
    (line,) = (archive.folder / "refused.jsonl").read_text().splitlines()
    error, uuid, conversation, seq, *_ = json.loads(line)
    assert ("UNIQUE" in error, uuid, conversation, seq) == (True, int(last.uuid), "U1_U2", 3)
    assert archive.execute("SELECT conversation, seq FROM message ORDER BY 1, 2") == [
        ("U1_U2", 2), ("U1_U2", 3), ("U1_U3", 1),
    ]  # fmt: skip
    archive.say(("U1", "U2"))
    (report,) = archive.fold()
    assert (report.refused, archive.execute("SELECT count(*) FROM message")) == (0, [(4,)])


def refuse_one(archive: Archive) -> Path:
    """The log has a message that the database will not take. Gives the file that is for it."""
    archive.say(("U1", "U2"))
    archive.fold()
    archive.execute("UPDATE message SET seq = 2")
    archive.say(("U1", "U2"))
    return archive.folder / "refused.jsonl"


def test_what_is_refused_is_put_aside_once_when_its_transaction_is_not_committed(archive: Archive) -> None:
    file = refuse_one(archive)
    archive.execute(
        "CREATE TRIGGER no_further BEFORE UPDATE ON log_position BEGIN SELECT RAISE(FAIL, 'no further'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="no further"):
        archive.fold()
    assert file.exists(), "before the database says that it needs the log no more"
    archive.execute("DROP TRIGGER no_further")
    archive.say(("U1", "U2"))  # which is of the same transaction now
    (report,) = archive.fold()
    assert report.refused == 1
    (line,) = file.read_text().splitlines()
    assert json.loads(line)[2:4] == ["U1_U2", 2]


def test_what_is_refused_is_put_aside_whole_once_the_disk_has_room_for_it(archive: Archive) -> None:
    file = refuse_one(archive)
    file.write_text("A note of somebody who has looked at it. " * 50_000)
    before = file.read_text()
    with no_file_longer_than(len(before) + 20), pytest.raises(OSError):
        archive.fold()
    assert file.read_text() == before
    archive.fold()
    note, line = file.read_text().splitlines()
    assert (note, json.loads(line)[2:4]) == (before, ["U1_U2", 2])


def test_each_message_that_is_refused_is_put_aside_though_they_share_an_id(archive: Archive) -> None:
    (first,) = archive.say(("U1", "U2"))
    archive.fold()
    for _ in range(2):
        archive.say(("U1", "U2"), uuid=int(first.uuid))
        archive.fold()
    lines = (archive.folder / "refused.jsonl").read_text().splitlines()
    assert [json.loads(line)[3] for line in lines] == [2, 3]


@pytest.mark.parametrize("place", [0, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE])
def test_of_many_messages_only_the_refused_one_is_left_out(archive: Archive, place: int) -> None:
    archive.say(("U1", "U2"))
    archive.fold()
    archive.execute("UPDATE message SET uuid = -1, seq = ?", 2 + place)
    said = archive.say(*[("U1", "U2")] * (2 * AT_ONCE + 1))
    archive.note(sent=said)
    (report,) = archive.fold()
    assert (report.refused, report.folded) == (1, archive.log.end)
    (line,) = (archive.folder / "refused.jsonl").read_text().splitlines()
    del said[place]
    rows = [(int(message.uuid), 1) for message in said]
    assert archive.execute("SELECT uuid, status FROM message WHERE uuid > 0 ORDER BY uuid") == rows


def test_the_position_is_of_the_same_transaction_as_what_was_folded(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    archive.execute(
        "CREATE TRIGGER no_further BEFORE UPDATE ON log_position BEGIN SELECT RAISE(FAIL, 'no further'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="no further"):
        archive.fold()
    assert archive.execute("SELECT * FROM message") == []
    archive.execute("DROP TRIGGER no_further")
    archive.fold()
    assert archive.execute("SELECT seq FROM message") == [(1,)]


def test_who_was_overtaken_by_another_process_changes_nothing(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    end = archive.log.end
    with contextlib.closing(Fold(archive.file, archive.folder, ID, is_durable=False)) as slow:
        chunk = Chunk(read_log(archive.folder, ID, 0, end))
        archive.say(("U1", "U2"))
        archive.fold()
        before = archive.seen
        with pytest.raises(sqlite3.OperationalError, match="another process folds the same log"):
            slow._store(chunk, 0)
    assert (archive.seen, archive.position) == (before, archive.log.end)


# --- what the machine may forget


def test_with_durability_the_log_is_needed_until_the_database_is_on_the_disk(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_module, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(fold_module, "_CHECKPOINT_BYTES", 1500)
    for _ in range(20):
        archive.say(("U1", "U2"))
    kept: set[int] = set()
    with contextlib.closing(Fold(archive.file, archive.folder, ID, is_durable=True)) as fold:
        for report in fold.up_to(archive.log.end):
            # Without the write-ahead log: what a power cut leaves of it at the worst.
            bare = archive.file.with_name("bare.db")
            shutil.copyfile(archive.file, bare)
            with contextlib.closing(sqlite3.connect(bare)) as connection:
                assert connection.execute("SELECT position FROM log_position").fetchone()[0] >= report.kept
            kept.add(report.kept)
    assert 1 < len(kept) < 20, "not with each transaction: that would cost what the log saves"


def test_while_a_reader_holds_it_up_nothing_more_may_be_forgotten(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    with (
        contextlib.closing(Fold(archive.file, archive.folder, ID, is_durable=True)) as fold,
        contextlib.closing(sqlite3.connect(archive.file, isolation_level=None)) as reader,
    ):
        fold._connection.execute("PRAGMA busy_timeout = 0")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM message").fetchall()
        (report,) = fold.up_to(archive.log.end)
        assert (report.folded, report.kept) == (archive.log.end, 0)
        reader.execute("COMMIT")
        archive.say(("U1", "U2"))
        (report,) = fold.up_to(archive.log.end)
        assert report.kept == archive.log.end


def test_what_was_committed_is_told_though_the_disk_has_no_room_for_the_checkpoint(archive: Archive) -> None:
    archive.say(*[("U1", "U3")] * 5000)  # more than the write-ahead log will have
    archive.fold()
    archive.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    archive.say(*[("U1", "U2")] * 100, content="x" * 1000)
    archive.note(cursors=[("U2", "U1_U2", 100, 100, 0)], receipts=[("U2", "U1_U2", 2, 100)])
    with no_file_longer_than(archive.file.stat().st_size + 4096):
        (report,) = archive.fold(is_durable=True)
    ((_, rises),) = report.rises
    assert (report.folded, report.kept, len(rises)) == (archive.log.end, 0, 100)


# --- the process


def long_script(archive: Archive, rounds: int = 150) -> None:
    luck = random.Random(7)
    script: list[tuple[str, list[Any]]] = []
    for _ in range(rounds):
        script.append(("say", luck.choices(PAIRS, k=4)))
        script.append(("note", [(luck.choice([*LEVELS]), luck.choice(["U1", "U2"]), luck.randrange(999))]))
    play(archive, script)


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_ends_with_what_it_would_have_had(archive: Archive, tmp_path: Path, seed: int) -> None:
    long_script(archive)
    expected = archive.beside(tmp_path / "expected")
    expected.fold()
    luck = random.Random(seed)
    kills = 0
    while archive.position < archive.log.end:
        with FoldProcess(archive) as process:
            process.ask(archive.log.end)
            for _ in range(luck.randrange(1, 60)):
                report = process.report()
                if report is None or report.folded == archive.log.end:
                    break
            time.sleep(luck.random() * 0.005)
        kills += 1
    assert kills > 3
    assert archive.seen == expected.seen
    assert not (archive.folder / "refused.jsonl").exists()
    assert archive.position == archive.log.end


def test_two_processes_at_once_do_no_harm(archive: Archive, tmp_path: Path) -> None:
    long_script(archive, 60)
    expected = archive.beside(tmp_path / "expected")
    expected.fold()
    with FoldProcess(archive) as one, FoldProcess(archive) as other:
        for process in (one, other):
            process.ask(archive.log.end)
        for process in (one, other):
            process.reports_until(archive.log.end)
            assert process.end() == 0
    assert archive.seen == expected.seen
    assert not (archive.folder / "refused.jsonl").exists()


def test_who_asks_the_next_process_for_what_the_last_one_did_is_answered(archive: Archive) -> None:
    """It may have ended between its transaction and its report."""
    archive.say(("U1", "U2"))
    archive.fold()
    with FoldProcess(archive) as process:
        process.ask(archive.log.end)
        assert [report.folded for report in process.reports_until(archive.log.end)] == [archive.log.end]
        assert process.end() == 0


def test_signals_that_are_meant_for_the_node_do_not_end_it(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    with FoldProcess(archive) as process:
        process.ask(archive.log.end)
        process.reports_until(archive.log.end)
        for number in (signal.SIGINT, signal.SIGTERM):
            process.process.send_signal(number)
        archive.say(("U1", "U2"))
        process.ask(archive.log.end)
        process.reports_until(archive.log.end)
        assert process.end() == 0


def test_it_goes_on_by_itself_once_the_database_works_again(archive: Archive) -> None:
    archive.say(("U1", "U2"))
    archive.execute("ALTER TABLE message RENAME TO away")
    with FoldProcess(archive) as process:
        process.ask(archive.log.end)
        report = process.report()
        assert report is not None and "no such table: message" in report.trouble
        archive.execute("ALTER TABLE away RENAME TO message")
        assert not process.reports_until(archive.log.end)[-1].trouble
        assert process.end() == 0
