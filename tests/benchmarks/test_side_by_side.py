"""The servers that kama is measured beside do what they are measured at, and what is measured is what is told."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from support import eventually
from websockets.asyncio.server import ServerConnection, serve

from benchmarks import group, relay
from benchmarks.check import check_store
from benchmarks.client import DIALECTS, MESSAGE_BYTES, Alarm, Client, Failed, Template, connect_all, number_of
from benchmarks.contestants import SERVERS, contestants
from benchmarks.load import Timing
from benchmarks.peers.installed import python_if_installed
from benchmarks.peers.server import PeerServer, python_peer
from benchmarks.report import Run, to_json, to_text
from benchmarks.servers import KEEPER, KamaServer, Server, descendants

ROOT = Path(__file__).resolve().parents[2]
SHORT = Timing(warm_up=0.05, measured=0.15)
PYTHON_PEERS = {
    "aiohttp_relay.py": ["aiohttp", "uvloop"],
    "starlette_relay.py": ["starlette", "uvicorn"],
    "socketio_relay.py": ["socketio"],
    "upstream_way.py": ["aiosqlite", "uvicorn"],
}


def started(script: str) -> PeerServer:
    """The peer, on the peers' own venv where it was made, else on this one."""
    runtime = python_if_installed()
    missing = [name for name in PYTHON_PEERS[script] if find_spec(name) is None]
    if runtime is None and missing:
        pytest.skip(f"{', '.join(missing)} is not installed here, and the venv of the benchmarks was not made")
    return python_peer(script, script, runtime=runtime or sys.executable)


# --- the peers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", PYTHON_PEERS)
async def test_a_peer_gives_each_message_to_the_receiver_and_back_to_the_sender(script: str) -> None:
    """And lets nobody in with another user's token."""
    with started(script) as server:
        figures, sent = await relay.run(server, SHORT, pairs=2)
        assert sent.keys() == {"Ur0_Us0", "Ur1_Us1"} and min(sent.values()) > 0
        assert figures["rate"] > 0 and 0 < figures["p50_ms"] <= figures["p99_ms"]
        stranger = Client(Alarm(), "Us0", KEEPER.issue("Us1", 60), DIALECTS[server.protocol])
        with pytest.raises(Failed, match="cannot log in"):
            await connect_all([stranger], server.url, 1)


async def test_a_peer_gives_a_groups_message_to_every_member() -> None:
    with started("starlette_relay.py") as server:
        figures, sent = await group.run(server, SHORT, members=5, window=2)
    assert figures["rate"] > 0 and sent[group.GROUP] > 0


async def test_kama_at_a_fixed_rate_is_measured_and_its_store_is_checked() -> None:
    with KamaServer("normal") as server:
        figures, sent = await relay.run_paced(server, Timing(0.1, 1.0), pairs=2, rate=10)
        await asyncio.to_thread(server.stop)  # while the clients' connections end
        check_store(server.database, sent)
        some = next(iter(sent))
        with pytest.raises(Failed, match="the store holds"):
            check_store(server.database, sent | {some: sent[some] + 1})
    assert figures["peak"] > 10 and 0 < figures["rate"] < 20 and figures["late_p99_ms"] >= 0


def run_benchmarks(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--quick", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=50, check=False
    )


def test_a_run_ends_with_the_figures_of_kama_and_its_conditions() -> None:
    size = ("--seconds", "0.2", "--warm-up", "0.1", "--pairs", "2")
    done = run_benchmarks("--only", "relay", "--servers", "kama", "--json", *size)
    assert (done.returncode, done.stderr) == (0, "")
    told = msgspec.json.decode(done.stdout)
    assert told["figures"]["relay"]["kama"]["rate"]["median"] > 0
    assert told["conditions"]["pairs"].startswith("2, one message under way in each, 270 bytes")


def test_a_run_with_nobody_there_says_who_is_missing() -> None:
    done = run_benchmarks("--servers", "node ws", PATH="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "benchmarks: error: none of these servers is here: node ws (node is missing)\n"


def test_where_node_is_missing_its_servers_are_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    absent: dict[str, str] = {}
    options = argparse.Namespace(servers=["kama", "node ws", "socket.io"], websocket="auto")
    assert [server.name for server in contestants(options, absent)] == ["kama"]
    assert absent == {"node ws": "node is missing", "socket.io": "node is missing"}


def test_every_server_can_be_asked_for_by_its_name() -> None:
    assert {"kama", "kama, disk", "node ws", "upstream's way"} < set(SERVERS)


# --- the client ----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes], Sequence[bytes]]) -> AsyncIterator[tuple[Client, Alarm]]:
    """A client of a server that answers a message so, and what it raises the alarm with."""

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            assert isinstance(message, str)
            for frame in answer(message.encode()):
                await connection.send(frame, text=True)

    async with serve(handler, "127.0.0.1", 0) as server:
        alarm = Alarm()
        client = Client(alarm, "U1", "a-token", DIALECTS["plain"])
        await client.connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield client, alarm
        client.leave()


def test_a_message_is_a_chat_message_of_its_size() -> None:
    message = Template("Us1", "Ur1", DIALECTS["plain"]).message(77)
    told = msgspec.json.decode(message)
    assert len(message) == MESSAGE_BYTES and number_of(message) == 77
    assert (told["send_id"], told["receive_id"], told["type"], told["content"][:10]) == ("Us1", "Ur1", 0, "0000000077")


@pytest.mark.parametrize(
    "answer",
    [
        lambda message: [message, message],
        lambda message: [message.replace(b"0000000000", b"0000000001")],
        lambda _message: [b'{"type":"error"}'],
    ],
    ids=["twice", "another", "an error"],
)
async def test_what_was_not_expected_ends_the_run(answer: Callable[[bytes], Sequence[bytes]]) -> None:
    async with answering(answer) as (client, alarm):
        pair = relay.Pair(relay.Relay(alarm, []), client, Client(alarm, "U2", "a-token", DIALECTS["plain"]))
        pair.send()
        with pytest.raises(Failed, match="U1 expected"):
            await alarm.sleep(10)


# --- what is measured ----------------------------------------------------------------------------------


PARENT = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print("listens on http://127.0.0.1:1", flush=True)
try:
    child.wait()
    signal.pause()
finally:
    child.kill()
"""
CHILD = """
import time
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
time.sleep(60)
"""


class Parent(Server):
    """Starts a child that works for a moment and then waits."""

    name = "parent"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-c", PARENT, CHILD]


async def test_a_servers_children_share_its_core_and_their_cpu_is_told_apart() -> None:
    core = max(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    server = Parent()
    server.core = core
    with server:
        (child,) = await eventually(lambda: descendants(server.pid))
        assert os.sched_getaffinity(child) == os.sched_getaffinity(server.pid) == {core}
        await eventually(lambda: server.children_cpu_seconds() >= 0.15)
        assert server.family_resident_kib() > server.resident_kib()
        os.kill(child, 9)
        server.stop()
    assert os.sched_getaffinity(0) == before


def message_file(folder: Path, rows: Sequence[tuple[str, int, str]]) -> Path:
    path = folder / "kama.db"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE message (conversation TEXT, seq INTEGER, content TEXT)")
        database.executemany("INSERT INTO message VALUES (?, ?, ?)", rows)
    return path


def rows(numbers: Sequence[int], before: int = 0, conversation: str = "U1_U2") -> list[tuple[str, int, str]]:
    return [(conversation, before + place, f"{number:010d}xx") for place, number in enumerate(numbers, 1)]


def test_a_store_with_everything_in_order_is_good(tmp_path: Path) -> None:
    in_group = rows([1, 0, 2], conversation="G1")
    check_store(message_file(tmp_path, rows([0, 1, 2]) + in_group), {"U1_U2": 3, "G1": 3, "U3_U4": 0})


def test_what_was_there_before_does_not_count(tmp_path: Path) -> None:
    check_store(message_file(tmp_path, rows([7]) + rows([0, 1], before=1)), {"U1_U2": 2}, before=1)


@pytest.mark.parametrize("stored", [[0, 1], [0, 1, 1], [0, 1, 3], [1, 0, 2]])
def test_a_store_that_misses_repeats_or_reorders_is_not(tmp_path: Path, stored: list[int]) -> None:
    with pytest.raises(Failed):
        check_store(message_file(tmp_path, rows(stored)), {"U1_U2": 3})


# --- what is told --------------------------------------------------------------------------------------

CPU = {"children_us": 6.5, "behind_s": 0.0, "server_cpu": 99.0, "others_cpu": 1.0}


def a_run() -> Run:
    run = Run({"date": "today"}, absent={"socket.io": "node is missing"})
    for rate in (10_000.0, 30_000.0, 20_000.0):
        common = {"p50_ms": 4.0, "p99_ms": 8.0, "server_us": 20.0, **CPU}
        run.add("relay", "kama", {"rate": rate, "client_cpu": 95.0, **common})
        run.add("relay", "node ws", {"rate": 2 * rate, "client_cpu": 60.0, **common, "server_us": 40.0})
    return run


def row_of(text: str, server: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {server} ")]
    return line.split()


def test_the_table_has_medians_their_spread_and_ratios_to_the_bare_relay() -> None:
    text = to_text(a_run())
    assert row_of(text, "kama")[:8] == ["kama", "*", "20,000", "(10,000-30,000)", "0.50", "4.00", "8.00", "20.0"]
    assert row_of(text, "kama")[8:] == ["0.50", "6.5", "0.0", "99", "95", "1"]
    assert row_of(text, "node ws")[2:5] == ["40,000", "(20,000-60,000)", "1.00"]
    assert "  socket.io: not here: node is missing" in text.splitlines()


def test_a_row_whose_client_was_busy_is_marked_and_no_other() -> None:
    warnings = a_run().warnings()
    assert warnings == ["relay, kama: the client is the limit, the figures are lower bounds (*)"]
    assert "*" not in row_of(to_text(a_run()), "node ws")


def test_without_the_bare_relay_there_are_no_ratios() -> None:
    run = a_run()
    del run.rounds["relay"]["node ws"]
    assert row_of(to_text(run), "kama")[4] == "-"


def test_a_rate_that_a_server_cannot_keep_up_has_no_figures_but_the_reason() -> None:
    run = Run({"date": "today"})
    run.add("rate", "node ws", {"rate": 100.0, "p50_ms": 1.0, "p99_ms": 2.0, "late_p99_ms": 0.1, **CPU})
    run.add("rate", "upstream's way", {"peak": 90.0})
    assert row_of(to_text(run), "upstream's way")[2:] == ["-"] * 12
    assert run.warnings() == ["rate, upstream's way: in 1 of 1 rounds more than it can do: it did 90 messages/s"]


def test_the_json_has_each_round_and_the_summary() -> None:
    told = msgspec.json.decode(to_json(a_run()))
    kama = told["figures"]["relay"]["kama"]
    assert kama["rate"] == {"median": 20_000.0, "min": 10_000.0, "max": 30_000.0, "ratio": 0.5}
    assert kama["client_is_the_limit"] and not told["figures"]["relay"]["node ws"]["client_is_the_limit"]
    assert len(told["rounds"]["relay"]["kama"]) == 3 and told["absent"] == {"socket.io": "node is missing"}
