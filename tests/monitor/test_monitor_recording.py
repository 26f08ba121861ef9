"""Recordings: what is written can be read again, from any place, after any end; and tells no names if it should not."""

from __future__ import annotations

import gzip
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from simulated_node import LIVE, START_MS, SimulatedNode

from kama.errors import SettingsError
from kama.monitor.frames import Item, Rewound
from kama.monitor.link import Link, LinkState
from kama.monitor.recorder import SEEK_EVERY_MS, Recorder
from kama.monitor.recording import Recording
from kama.monitor.redaction import Redactor
from kama.monitor.store import MonitorStore
from kama.monitor_protocol import Bye, Client, Event, NodeFrame, Result, decode_node_frame


def knowledge(store: MonitorStore) -> dict[str, Any]:
    """Everything that a store knows, to compare two of them."""
    return {
        "nodes": dict(store.nodes),
        "clients": dict(store.clients),
        "closed": store.closed,
        "events": list(store.events),
        "failures": list(store.failures),
        "messages": [(message.uuid, message.status, message.times) for message in store.messages],
        "points": {name: store.points(name) for name in store.nodes},
        "rates": {name: store.rates(name) for name in store.nodes},
        "links": {name: (each.link, each.frame_ms, each.skew_ms) for name, each in store.sources.items()},
        "chains": {name: (each.chain.seq, each.needs_snap) for name, each in store.sources.items()},
    }


def stored(items: Iterable[Item]) -> MonitorStore:
    store = MonitorStore()
    for item in items:
        store.apply(item.source, item.frame, item.at_ms)
    return store


class Session:
    """A node that is watched and recorded, a second at a time."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.node = SimulatedNode(interval_ms=500)
        self.store = MonitorStore()
        self.take(LIVE, self.node.hello(), self.node.snap())
        self.recorder = Recorder(path, self.store, self.node.now_ms, **options)
        self._second = 0

    def take(self, *frames: NodeFrame | Link) -> None:
        for frame in frames:
            item = Item("http://n1", frame, self.node.now_ms)
            self.store.apply(*item[:2], item.at_ms)
            if hasattr(self, "recorder"):
                self.recorder.record(item)

    def second(self) -> None:
        at = self._second = self._second + 1
        self.node.connect(f"c{at % 7}", f"U{at}", depth=at)
        if at % 7 == 6:
            self.node.disconnect(f"c{at % 7}")
        self.node.count(accepted=at)
        kind = "dropped" if at % 5 == 0 else "accepted"
        event = Event(at_ms=self.node.now_ms, kind=kind, node="n1", uuid=str(at))  # type: ignore[arg-type]
        self.take(self.node.delta(), self.node.events(event), self.node.delta())


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "a.kamarec")


def all_of(path: Path) -> list[Item]:
    with Recording(path) as recording:
        return list(recording.items_before(len(recording)))


def test_what_was_recorded_is_what_is_read(session: Session) -> None:
    for _ in range(25):
        session.second()
    session.recorder.close()
    assert knowledge(stored(all_of(session.recorder.path))) == knowledge(session.store)


def test_the_same_file_twice_gives_the_same_twice(session: Session) -> None:
    for _ in range(25):
        session.second()
    session.recorder.close()
    once, twice = stored(all_of(session.recorder.path)), stored(all_of(session.recorder.path))
    assert knowledge(once) == knowledge(twice)


def test_it_is_seen_from_any_place_as_it_was_then(session: Session) -> None:
    """Far behind the start, what is read begins at a seek point: rows, links and what follows are the same."""
    then: dict[int, dict[str, Any]] = {}
    for at in range(120):
        session.second()
        if at in (5, 60, 119):
            then[session.node.now_ms] = knowledge(session.store)
    session.recorder.close()
    with Recording(session.recorder.path) as recording:
        for at_ms, known in then.items():
            found = knowledge(stored(recording.items_before(recording.place_at(at_ms))))
            for part in ("nodes", "clients", "links", "chains", "closed"):
                assert found[part] == known[part], part
            assert found["events"][-40:] == known["events"][-40:]
            assert found["points"]["n1"][-40:] == known["points"]["n1"][-40:]


def test_reading_from_a_place_does_not_read_all_before_it(session: Session) -> None:
    for _ in range(300):
        session.second()
    session.recorder.close()
    with Recording(session.recorder.path) as recording:
        assert len(list(recording.items_before(len(recording)))) < len(recording) / 2


def test_one_that_begins_behind_events_goes_on_with_the_next_delta(tmp_path: Path) -> None:
    node, store = SimulatedNode(), MonitorStore()
    for frame in (LIVE, node.hello(), node.snap(), node.events(), node.events()):
        store.apply("http://n1", frame, node.now_ms)
    recorder = Recorder(tmp_path / "a.kamarec", store, node.now_ms)
    node.connect("c1")
    recorder.record(Item("http://n1", node.delta(), node.now_ms))
    recorder.close()
    read = stored(all_of(recorder.path))
    assert set(read.clients) == {"c1"} and not read.needs_snap("http://n1")


def test_a_source_that_missed_frames_still_needs_a_snap_when_read(session: Session) -> None:
    session.node.delta()  # lost
    session.take(session.node.delta())
    for _ in range(SEEK_EVERY_MS // 1000 + 1):
        session.second()
    session.recorder.close()
    with Recording(session.recorder.path) as recording:
        seek = list(recording.items_before(1))
    assert stored(all_of(session.recorder.path)).needs_snap("http://n1") and not stored(seek).needs_snap("http://n1")


def test_only_the_owner_may_read_it(session: Session) -> None:
    assert stat.S_IMODE(session.recorder.path.stat().st_mode) == 0o600
    session.recorder.close()


def test_no_file_is_written_over(session: Session) -> None:
    session.recorder.close()
    with pytest.raises(SettingsError, match="expected a new file to record to, got .*, which exists"):
        Session(session.recorder.path)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot record to .*: No such file or directory"):
        Session(tmp_path / "none" / "a.kamarec")


def test_it_stops_at_its_size_and_says_so(tmp_path: Path) -> None:
    session = Session(tmp_path / "a.kamarec", max_bytes=4_000)
    while not session.recorder.stopped:
        session.second()
    assert session.recorder.stopped == "the recording has reached its 4000 bytes"
    size = session.recorder.path.stat().st_size
    session.second()
    assert session.recorder.path.stat().st_size == size < 10_000
    assert all_of(session.recorder.path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_recording_and_nothing_else(session: Session) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), session.recorder._file.fileno())
    for _ in range(3):
        session.second()
    assert "No space left on device" in session.recorder.stopped
    assert len(session.store.events) == 3


def test_answers_to_requests_are_not_recorded(session: Session) -> None:
    session.take(Result(request="secret"))
    session.recorder.close()
    assert b"secret" not in gzip.decompress(session.recorder.path.read_bytes())


_WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_monitor_recording import Session
session = Session(Path(sys.argv[1]))
for _ in range(30):
    session.second()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_loses_a_second_at_most(tmp_path: Path) -> None:
    path, tests = tmp_path / "a.kamarec", Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tests)])}
    died = subprocess.run(
        [sys.executable, "-c", _WRITE_AND_DIE, str(path), str(tests)], env=environment, timeout=50, check=False
    )
    assert died.returncode == -signal.SIGKILL
    with Recording(path) as recording:
        assert recording.end_ms >= START_MS + 28_000
        stored(recording.items_before(len(recording)))


@pytest.mark.parametrize("end", [1, 9, 40, 200, 1_000])
def test_an_end_that_is_cut_off_is_left_out(session: Session, end: int) -> None:
    for _ in range(25):
        session.second()
    session.recorder.close()
    path = session.recorder.path
    whole = len(all_of(path))
    path.write_bytes(path.read_bytes()[:-end])
    left = len(all_of(path))
    assert 0 < left <= whole


def test_spoilt_bytes_in_the_middle_end_it_there(session: Session) -> None:
    for _ in range(200):
        session.second()
    session.recorder.close()
    data = bytearray(session.recorder.path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"x" * 40
    session.recorder.path.write_bytes(bytes(data))
    assert all_of(session.recorder.path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        gzip.compress(b"hello\n"),
        gzip.compress(b'{"at_ms":1}\n{"at_ms":2}\n'),
        gzip.compress(b'{"kama_recording":1}\n'),
        gzip.compress(b'{"kama_recording":1}\n{"at_ms":1,"source":"x","frame":{"type":"left"}}\n'),
    ],
    ids=["empty", "text", "compressed text", "no first line", "nothing behind it", "no frame of ours"],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.kamarec"
    path.write_bytes(content)
    with pytest.raises(
        SettingsError, match=r"expected a recording of kama monitor in .*a\.kamarec, got something else"
    ):
        Recording(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the recording .*: No such file or directory"):
        Recording(tmp_path / "none")


def test_a_recording_of_a_newer_kind_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "a.kamarec"
    path.write_bytes(gzip.compress(b'{"kama_recording":2,"kama":"9.0"}\n{"at_ms":1,"seek":[]}\n'))
    with pytest.raises(SettingsError, match=r"version 1 in .*, got version 2, written by kama 9\.0"):
        Recording(path)


def test_it_begins_anew_for_whoever_reads(session: Session) -> None:
    session.recorder.close()
    assert isinstance(all_of(session.recorder.path)[0].frame, Rewound)


# --- without names -------------------------------------------------------------------------------------

_MARK = "Umarked-text"
# Words of ours and numbers, by their fields.
_PLAIN = {"kind", "state", "mode", "version", "epoch", "role", "uuid", "type"}


def filled(kind: type) -> Any:
    """One with the mark in each text, and in texts of all that it holds."""
    values: dict[str, Any] = {}
    for each in msgspec.structs.fields(kind):
        values[each.name] = _filling(each.type)
    return kind(**values)


def _filling(kind: Any) -> Any:
    match msgspec.inspect.type_info(kind):
        case msgspec.inspect.StrType():
            return _MARK
        case msgspec.inspect.IntType():
            return 1
        case msgspec.inspect.FloatType():
            return 1.0
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.StructType(cls=cls):
            return filled(cls)
        case msgspec.inspect.ListType():
            return [_filling(get_args(kind)[0])]
        case msgspec.inspect.DictType():
            return {"store": _filling(get_args(kind)[1])}
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.EnumType(cls=cls):
            return next(iter(cls))
        case msgspec.inspect.UnionType():
            return None
    raise AssertionError(f"what is a {kind}?")


@pytest.mark.parametrize("kind", [*get_args(NodeFrame), Link], ids=lambda kind: kind.__name__)
def test_no_text_of_any_frame_is_left(kind: type) -> None:
    frame = filled(kind)
    document = msgspec.to_builtins(Redactor().frame(frame))

    def check(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                check(each, key)
        elif isinstance(value, list):
            for each in value:
                check(each, name)
        elif value == _MARK:
            assert name in _PLAIN | {"actions"}, name

    check(document, "")
    decode = msgspec.json.Decoder(Link).decode if kind is Link else decode_node_frame
    decode(msgspec.json.encode(document))


def test_one_is_still_told_from_the_other() -> None:
    redactor = Redactor()
    user, group = redactor.text("U123456"), redactor.text("Gteam")
    assert user == redactor.text("U123456") != redactor.text("U123457")
    assert (user[0], group[0], redactor.text("")) == ("U", "G", "")


def test_two_recordings_have_nothing_in_common() -> None:
    assert Redactor().text("U123456") != Redactor().text("U123456")


def test_a_redacted_recording_holds_no_names_and_replays_the_same_numbers(tmp_path: Path) -> None:
    session = Session(tmp_path / "a.kamarec", redact=True)
    session.node.change(troubles={"store": "failing: disk /home/ann"})
    for at in range(25):
        session.node.connect("c-private", "Uprivate", device="Ann's phone", address="203.0.113.7:1", depth=at)
        session.second()
    session.take(Link(state=LinkState.STALE, cause="http://secret-host refused"), Bye(reason="shutdown", message="Ann"))
    session.recorder.close()
    text = gzip.decompress(session.recorder.path.read_bytes())
    for word in (b"Uprivate", b"Ann", b"203.0.113", b"c-private", b"http://n1", b"secret-host", b'"n1"'):
        assert word not in text
    with Recording(session.recorder.path) as recording:
        assert recording.is_redacted
    replayed = stored(all_of(session.recorder.path))
    assert sorted(client.depth for client in replayed.clients.values()) == sorted(
        client.depth for client in session.store.clients.values()
    )
    (node,) = replayed.nodes.values()
    assert node.counters == session.node.node.counters and "store" in node.troubles
    assert all(isinstance(client, Client) and client.user_id[0] == "U" for client in replayed.clients.values())
