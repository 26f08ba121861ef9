"""`kama bench` as people type it: what it prints, what it refuses, and how it ends when it is interrupted."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from command_line import Kama
from support import NodeProcess, token

SHORT = ("--pairs", "2", "--duration", "300ms", "--warmup", "0")


def started(live: NodeProcess, *arguments: str, **more: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "kama", "bench", "-s", live.url, "--pairs", "2", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **more)  # type: ignore[call-overload]


# --- what it prints ------------------------------------------------------------------------------------


def test_a_run_ends_with_a_table(kama: Kama, live: NodeProcess) -> None:
    done = kama("bench", *SHORT, "--verify")
    assert (done.code, done.err) == (0, "")
    rows = {row[0]: row[1:] for line in done.out.splitlines() if (row := line.split())}
    assert int(rows["sent"][0]) == int(rows["acked"][0]) == int(rows["received"][0]) > 0
    assert rows["LATENCY"] == ["ms", "p50", "p90", "p99", "p99.9", "max"]
    assert float(rows["accept"][0]) > 0 and float(rows["receive"][4]) > 0
    assert all(rows[name] == ["0"] for name in ("lost", "duplicated", "reordered", "unacked", "reconnects"))


def test_json_is_one_object_with_the_conditions(kama: Kama, live: NodeProcess) -> None:
    done = kama("bench", *SHORT, "--rate", "30", "--message-size", "1KB", "--json")
    assert (done.code, done.err) == (0, "")
    told = done.json
    assert told["pattern"] == "relay" and told["interrupted"] is False and told["verify"] is None
    conditions = told["conditions"]
    assert conditions["nodes"] == [live.url] and conditions["versions"]["kama"]
    assert (conditions["pairs"], conditions["rate"], conditions["message_size"]) == (2, 30.0, 1000)
    assert (conditions["duration"], conditions["warmup"], conditions["window"]) == (0.3, 0.0, 100)
    assert set(told["latency_ms"]["accept"]) == {"count", "p50", "p90", "p99", "p99_9", "max"}


@pytest.mark.parametrize("pattern", ["fanout", "connect"])
def test_each_pattern_runs(kama: Kama, live: NodeProcess, pattern: str) -> None:
    size = ("--groups", "1", "--size", "3") if pattern == "fanout" else ()
    done = kama("bench", *SHORT, "--pattern", pattern, *size, "--json")
    assert done.code == 0, done.err
    counted = "logins" if pattern == "connect" else "received"
    assert done.json["per_second"][counted] > 0


def test_several_addresses_are_loaded(kama: Kama, live: NodeProcess) -> None:
    other = live.url.replace("127.0.0.1", "localhost")
    done = kama("bench", *SHORT, "-s", live.url, "-s", other, "--json", "--verify")
    assert (done.code, done.json["conditions"]["nodes"]) == (0, [live.url, other])


def test_the_token_of_an_operator_is_used_for_what_operators_do(kama: Kama, live: NodeProcess, tmp_path: Path) -> None:
    for role, code in (("admin", 0), ("user", 4)):
        file = tmp_path / role
        file.write_text(token("Uop", role))  # type: ignore[arg-type]
        assert kama("bench", *SHORT, "--pattern", "fanout", "--token-file", str(file)).code == code


# --- what it refuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://192.0.2.1:8000", "http://node.example:8000", "http://[2001:db8::1]:8000"])
def test_an_address_elsewhere_wants_a_yes(kama: Kama, secret: str, address: str) -> None:
    done = kama("bench", "-s", "http://127.0.0.1:8000", "-s", address, "--json")
    assert (done.code, done.out) == (2, "")
    assert address in done.error["message"] and "--yes-remote" in done.error["hint"]


def test_with_the_yes_it_tries(kama: Kama, secret: str) -> None:
    done = kama("bench", "-s", "http://node.invalid:1", "--yes-remote")
    assert done.code == 3 and "node.invalid" in done.err


def test_no_node_is_told_as_such(kama: Kama, secret: str) -> None:
    done = kama("bench", "-s", "http://127.0.0.1:1")
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("kama: error: no kama node answers at http://127.0.0.1:1")


def test_a_token_alone_is_not_enough(kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAMA_AUTH__SECRET")
    monkeypatch.setenv("KAMA_TOKEN", token("U1"))
    done = kama("bench", *SHORT)
    assert (done.code, done.out) == (4, "")
    assert "one token is not enough" in done.err and "\nhint: give the node's settings" in done.err


def test_the_wrong_secret_is_told_at_once(kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_AUTH__SECRET", "not the one of this node, but as long as it has to be")
    done = kama("bench", *SHORT)
    assert done.code == 4 and "does not match" in done.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--groups", "2"), "--groups"),
        (("--pattern", "connect", "--verify"), "--verify"),
        (("--message-size", "10"), "48 to"),
        (("--message-size", "big"), "expected a size"),
        (("--duration", "0s"), "more than nothing"),
        (("--rate", "0"), "--rate"),
        (("--pairs", "0"), "--pairs"),
        (("--pattern", "storm"), "--pattern"),
        (("-s", "127.0.0.1:8000"), "did you mean"),
    ],
)
def test_what_cannot_be_done_is_a_usage_error(kama: Kama, secret: str, arguments: tuple[str, ...], named: str) -> None:
    done = kama("bench", *arguments)
    assert (done.code, done.out) == (2, "")
    assert named in done.err


# --- while it runs -------------------------------------------------------------------------------------


def counted(live: NodeProcess, metric: str) -> float:
    """As the node's /metrics have it; 0 for what has not happened yet."""
    with httpx2.Client(base_url=live.url, trust_env=False, verify=False) as client:
        found = re.search(rf"^{metric} (\S+)$", client.get("/metrics").text, re.M)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize(
    ("pattern", "metric"),
    [("fanout", "kama_messages_accepted_total"), ("connect", 'kama_connections_closed_total{code="1000"}')],
)
def test_ctrl_c_prints_what_there_is(live: NodeProcess, pattern: str, metric: str) -> None:
    before = counted(live, metric)
    process = started(live, "--pattern", pattern, "--duration", "1m", "--warmup", "0", "--json", stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while counted(live, metric) < before + 10:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, b"")
    told = json.loads(out)
    assert told["interrupted"] is True and 0 < told["measured_seconds"] < 5
    assert told["logins"] > 0 and any("did not come to its end" in warning for warning in told["warnings"])


def test_a_terminal_sees_how_it_goes_on_and_stdout_stays_data(live: NodeProcess) -> None:
    ours, theirs = pty.openpty()
    try:
        environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"TERM": "xterm"}
        process = started(live, "--duration", "1500ms", "--warmup", "0", stderr=theirs, env=environment)  # type: ignore[arg-type]
        out, _ = process.communicate(timeout=20)
        shown = b""
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0
    assert b"measuring" in shown and b"acked" in shown and b"reconnects 0" in shown
    assert out.startswith(b" ") and b"\x1b" not in out and b"accept" in out
