"""`kama tail`: events as lines, as JSON, filtered, counted, and for as long as somebody reads."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Kama, Outcome
from simulated_node import SimulatedNode
from support import NodeProcess, Peer, RunningNode, eventually, token
from watching_support import FakeNode, viewer

from kama.errors import ExitCode
from kama.monitor_protocol import Event, EventQuery, Sub


@pytest.fixture(autouse=True)
def given_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_TOKEN", viewer())


async def tail(kama: Kama, url: str, *arguments: str) -> Outcome:
    """Beside the event loop of the node."""
    return await asyncio.to_thread(kama, "tail", "-s", url, *arguments)


async def while_talking(kama: Kama, node: NodeProcess, *arguments: str) -> Outcome:
    """What it prints while U1 says something to U2, again and again."""
    tailing = asyncio.get_running_loop().create_task(tail(kama, node.url, *arguments))
    async with Peer(node.url, "U1") as one, Peer(node.url, "U2"):
        while not tailing.done():
            await one.say("U2", "hello")
            await asyncio.wait([tailing], timeout=0.1)
    return await tailing


async def test_it_prints_a_line_for_each_event_and_ends_at_its_count(kama: Kama, live: NodeProcess) -> None:
    done = await while_talking(kama, live, "--count", "8")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) == 8 and all(live.url.removeprefix("http://") in line for line in lines)
    assert {"accepted", "stored", "routed"} <= {line.split()[3] for line in lines}


async def test_json_is_an_event_a_line_with_the_protocols_names(kama: Kama, live: NodeProcess) -> None:
    done = await while_talking(kama, live, "--count", "1", "--json", "--status", "accepted")
    (event,) = done.json_lines
    assert (event["kind"], event["send_id"], event["receive_id"], event["node"]) == (
        "accepted", "U1", "U2", live.url.removeprefix("http://"),
    )  # fmt: skip


async def test_what_happened_before_is_not_told(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "Uearlier"):
        pass
    done = await while_talking(kama, live, "--count", "3", "--json")
    assert not any(event.get("user_id") == "Uearlier" for event in done.json_lines)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ((), ""),
        (("--filter", "seq>3 !idle"), "seq>3 !idle"),
        (("--user", "U1", "--failed"), "user=U1 failed"),
        (("--group", "Gteam", "--status", "sent", "-f", "seq>3"), "seq>3 group=Gteam kind=sent"),
    ],
)
async def test_the_node_does_the_filtering(kama: Kama, arguments: tuple[str, ...], asked: str) -> None:
    node = SimulatedNode()
    server = FakeNode(node.hello(), node.snap(), node.events(Event(at_ms=node.now_ms, kind="opened", node="n1")))
    async with server:
        done = await tail(kama, server.url, "--count", "1", *arguments)
        assert done.code == 0
        sub = server.received[0][0]
    assert isinstance(sub, Sub) and sub.events == EventQuery(per_second=1000, filter=asked) and sub.clients.limit == 0


# --- how it ends ---------------------------------------------------------------------------------------


async def test_nothing_within_the_wait_is_exit_code_5(kama: Kama, live: NodeProcess) -> None:
    done = await tail(kama, live.url, "--wait", "300ms", "--user", "Unobody")
    assert (done.code, done.out) == (ExitCode.TIMEOUT, "")
    assert "0 events came, then none for 300ms" in done.err


async def test_fewer_than_counted_is_exit_code_5(kama: Kama) -> None:
    node = SimulatedNode()
    server = FakeNode(node.hello(), node.snap(), node.events(Event(at_ms=node.now_ms, kind="opened", node="n1")))
    async with server:
        done = await tail(kama, server.url, "--wait", "1s", "--count", "2")
    assert done.code == ExitCode.TIMEOUT and "1 event of 2 came" in done.err


async def test_some_and_then_none_is_a_good_end(kama: Kama) -> None:
    node = SimulatedNode()
    server = FakeNode(node.hello(), node.snap(), node.events(Event(at_ms=node.now_ms, kind="opened", node="n1")))
    async with server:
        done = await tail(kama, server.url, "--wait", "1s")
    assert (done.code, done.err) == (0, "") and "opened" in done.out


def test_a_node_that_is_away_is_waited_for_and_told(kama: Kama) -> None:
    done = kama("tail", "-s", "http://127.0.0.1:1", "--wait", "500ms")
    assert done.code == ExitCode.TIMEOUT
    first, last = done.err.splitlines()
    assert first.startswith("kama: http://127.0.0.1:1: gone, no kama node answers") and first.endswith("; trying again")
    assert "then none for 500ms; http://127.0.0.1:1: gone, no kama node answers" in last


@pytest.mark.parametrize("given", ["nonsense", token("U1")])
async def test_a_token_that_may_not_ends_it_with_4(
    kama: Kama, node: RunningNode, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("KAMA_TOKEN", given)
    assert (await tail(kama, node.url)).code == ExitCode.AUTH


@pytest.mark.parametrize(
    ("environment", "code", "hint"),
    [
        ({"KAMA_TOKEN": "two words"}, ExitCode.USAGE, ""),
        ({"KAMA_TOKEN": "", "KAMA_CONFIG": "/no/such"}, ExitCode.USAGE, "\nhint: kama config init FILE makes one"),
        ({"KAMA_TOKEN": ""}, ExitCode.AUTH, "\nhint: start a node once (kama serve), it makes one; or give a token"),
    ],
)
def test_a_token_that_cannot_be_had_ends_it_as_any_command(
    kama: Kama, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], code: int, hint: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = kama("tail", "-s", "http://127.0.0.1:1", "--wait", "5s", "--data-dir", str(tmp_path))
    assert (done.code, done.out) == (code, "") and hint in done.err


async def test_another_protocol_ends_it_with_3(kama: Kama) -> None:
    hello = SimulatedNode().hello()
    hello.protocol = 7
    async with FakeNode(hello) as server:
        done = await tail(kama, server.url)
    assert done.code == ExitCode.CANNOT_CONNECT and "expected monitor protocol 1, got 7" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--filter", "colour=red"), "expected a field of user"),
        (("--user", "x"), "expected a user's id"),
        (("--group", "U1"), "expected a group's id"),
        (("--status", "asleep"), "is not one of 'accepted'"),
        (("--wait", "soon"), "expected a duration"),
        (("--count", "0"), "--count"),
    ],
)
def test_a_wrong_option_is_a_usage_error(kama: Kama, arguments: tuple[str, ...], told: str) -> None:
    done = kama("tail", *arguments)
    assert done.code == ExitCode.USAGE and told in done.err


async def test_what_was_left_out_and_lost_is_told(kama: Kama) -> None:
    node = SimulatedNode()
    event = Event(at_ms=node.now_ms, kind="opened", node="n1")
    async with FakeNode(node.hello(), node.snap(), node.events(event, sampled_out=7, lost=3)) as server:
        done = await tail(kama, server.url, "--count", "1")
    assert "7 events left out" in done.err and "3 events lost" in done.err and done.code == 0


# --- a process of its own ------------------------------------------------------------------------------


@pytest.fixture
def start_tail(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    errors = (tmp_path / "err").open("w")

    def start(url: str, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "kama", "tail", "-s", url, *arguments],
            stdout=stdout,
            stderr=errors,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "KAMA_TOKEN": viewer()},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    errors.close()


async def test_ctrl_c_ends_it_with_130(node: RunningNode, start_tail: Callable[..., subprocess.Popen[str]]) -> None:
    process = start_tail(node.url)
    await eventually(lambda: len(node.node.watchers), 20)
    process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(process.wait, 20) == ExitCode.INTERRUPTED


async def test_it_ends_quietly_when_whoever_reads_has_seen_enough(
    node: RunningNode, start_tail: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    process = start_tail(node.url, stdout=writer)
    os.close(writer)
    os.close(reader)
    await eventually(lambda: len(node.node.watchers), 20)
    async with node.login("U1"):
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert (tmp_path / "err").read_text() == ""


async def test_it_comes_back_after_the_node_and_tells_no_event_twice(
    tmp_path: Path, start_tail: Callable[..., subprocess.Popen[str]]
) -> None:
    errors, log = tmp_path / "err", tmp_path / "node" / "node.log"
    with NodeProcess(tmp_path / "node") as node:
        process = start_tail(node.url, "--count", "4", "--json", "--filter", "kind:ed user:Utail")
        await eventually(lambda: "watching" in log.read_text(), 20)
        async with Peer(node.url, "Utail1"):
            pass
        seen = [await asyncio.to_thread(process.stdout.readline) for _ in range(2)]  # type: ignore[union-attr]
        node.kill()
        await eventually(lambda: "trying again" in errors.read_text(), 20)
        node.start()
        await eventually(lambda: "back again" in errors.read_text(), 40)
        async with Peer(node.url, "Utail2"):
            pass
        out, _ = await asyncio.to_thread(process.communicate, None, 20)
    events = [json.loads(line) for line in [*seen, *out.splitlines()]]
    assert process.returncode == 0
    assert [(event["kind"], event["user_id"]) for event in events] == [
        ("opened", "Utail1"),
        ("closed", "Utail1"),
        ("opened", "Utail2"),
        ("closed", "Utail2"),
    ]
