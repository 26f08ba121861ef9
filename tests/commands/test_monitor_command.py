"""`kama monitor`: one snapshot as text and as JSON, and what it takes to draw."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import ModuleType

import pytest
from command_line import Kama, Outcome
from simulated_node import SimulatedNode
from support import NodeProcess, Peer, RunningNode, bearer, eventually, token
from watching_support import FakeNode, viewer

from kama import cli
from kama.commands import monitor
from kama.errors import ExitCode
from kama.monitor.options import MonitorOptions
from kama.monitor_protocol import Event, Node, Queue, Snapshot


@pytest.fixture(autouse=True)
def given_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_TOKEN", viewer())


def snapshot(node: SimulatedNode, *events: Event) -> Snapshot:
    return Snapshot(hello=node.hello(), snap=node.snap(), events=list(events))


async def once(kama: Kama, *arguments: str) -> Outcome:
    """Beside the event loop of the node."""
    return await asyncio.to_thread(kama, "monitor", "--once", *arguments)


# --- --once --------------------------------------------------------------------------------------------


async def test_it_shows_the_verdict_the_nodes_and_who_is_there(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "U1", device="phone"):
        done = await once(kama, "-s", live.url)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "OK"
    assert lines[2].split()[:4] == ["NODE", "STATE", "UP", "CONNECTIONS"]
    assert lines[3].split()[:2] == [live.url.removeprefix("http://"), "up"]
    assert lines[5].startswith("USER") and lines[6].split()[:3] == ["U1", live.url.removeprefix("http://"), "phone"]


async def test_json_is_one_object_with_all_of_it(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "U1"):
        done = await once(kama, "-s", live.url, "--json")
    assert done.json["verdict"] == {"level": "ok", "causes": []}
    assert [each["name"] for each in done.json["nodes"]] == [live.url.removeprefix("http://")]
    assert done.json["connections"] == 1 and done.json["clients"][0]["user_id"] == "U1"


async def test_the_latest_failures_are_shown(kama: Kama, node: RunningNode) -> None:
    await node.refusal("U1", headers=bearer("U2"))
    await eventually(lambda: node.node.journal.count)
    done = await once(kama, "-s", node.url)
    assert "refused" in done.out.splitlines()[-1] and "U2" in done.out.splitlines()[-1]
    assert (await once(kama, "-s", node.url, "--json")).json["failures"][0]["kind"] == "refused"


async def test_troubles_make_the_verdict_and_name_their_causes(kama: Kama) -> None:
    node = SimulatedNode()
    node.connect("c1", "U7", depth=95, capacity=100)
    node.change(troubles={"cache": "away"})
    async with FakeNode(snapshot=snapshot(node)) as server:
        done = await once(kama, "-s", server.url)
        assert done.out.splitlines()[:3] == [
            "DEGRADED",
            "  cache of n1: away",
            "  1 connection at 95/100 of the send queue (U7)",
        ]
        found = (await once(kama, "-s", server.url, "--json")).json["verdict"]
    assert found["level"] == "degraded" and found["causes"][0] == {
        "level": "degraded",
        "text": "cache of n1: away",
        "subject": "n1",
    }


async def test_the_busiest_of_those_that_pass_the_filter_come_first(kama: Kama) -> None:
    node = SimulatedNode()
    for at in range(20):
        node.connect(f"c{at}", f"U{at}", depth=at, capacity=100)
    failures = [Event(at_ms=at, kind="dropped", node="n1", user_id=f"U{at}") for at in range(3)]
    async with FakeNode(snapshot=snapshot(node, *failures)) as server:
        found = (await once(kama, "-s", server.url, "--json", "--filter", "queue<12")).json
        users = [client["user_id"] for client in found["clients"]]
        assert users == [f"U{at}" for at in range(11, 1, -1)]
        found = (await once(kama, "-s", server.url, "--json", "--filter", "user=U2")).json
        assert [event["user_id"] for event in found["failures"]] == ["U2"]


async def test_one_of_several_nodes_may_be_away(kama: Kama) -> None:
    node = SimulatedNode()
    async with FakeNode(snapshot=snapshot(node)) as server:
        done = await once(kama, "-s", "http://127.0.0.1:1", "-s", server.url)
    assert done.code == 0 and "n1" in done.out
    assert done.err == "kama: http://127.0.0.1:1: no kama node answers at http://127.0.0.1:1: Connection refused\n"


async def test_all_asks_the_nodes_that_a_node_lists(kama: Kama) -> None:
    one, two = SimulatedNode("n1"), SimulatedNode("n2")
    two.connect("c2", "U2")
    async with FakeNode(snapshot=snapshot(two)) as second:
        one.others["n2"] = Node(name="n2", epoch="e", address=second.address)
        one.others["n3"] = Node(name="n3", epoch="e", address="127.0.0.1:1", state="gone")
        async with FakeNode(snapshot=snapshot(one)) as first:
            alone = (await once(kama, "-s", first.url, "--json")).json
            together = (await once(kama, "-s", first.url, "--json", "--all")).json
    assert not alone["clients"] and [client["user_id"] for client in together["clients"]] == ["U2"]
    assert [each["name"] for each in together["nodes"]] == ["n1", "n2", "n3"]


async def test_queues_without_a_bound_and_nodes_without_figures_are_shown(kama: Kama) -> None:
    node = SimulatedNode()
    node.change(queues={"status": Queue(depth=4)}, started_ms=0)
    async with FakeNode(snapshot=snapshot(node)) as server:
        row = (await once(kama, "-s", server.url)).out.splitlines()[3].split()
    assert row[2] == "–" and "4" in row


# --- what goes wrong -----------------------------------------------------------------------------------


def test_no_node_is_exit_code_3(kama: Kama) -> None:
    done = kama("monitor", "--once", "-s", "http://127.0.0.1:1")
    assert done.code == ExitCode.CANNOT_CONNECT and "hint: start one: kama serve" in done.err


@pytest.mark.parametrize("given", ["nonsense", token("U1")])
async def test_a_token_that_may_not_is_exit_code_4(
    kama: Kama, node: RunningNode, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("KAMA_TOKEN", given)
    assert (await once(kama, "-s", node.url)).code == ExitCode.AUTH


def test_the_local_secret_is_not_for_nodes_elsewhere(kama: Kama, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAMA_TOKEN")
    done = kama("monitor", "--once", "-s", "http://192.0.2.1:8000")
    assert done.code == ExitCode.AUTH and "the local secret is for nodes on this machine" in done.err
    assert "kama token Uoperator --role viewer makes one" in done.err


async def test_without_a_token_one_is_made_from_the_local_secret(
    kama: Kama, node: RunningNode, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAMA_TOKEN")
    assert (await once(kama, "-s", node.url)).code == 0


async def test_a_token_may_come_from_stdin(kama: Kama, node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAMA_TOKEN")
    arguments = ("monitor", "--once", "-s", node.url, "-s", f"{node.url}/", "-t", "-")
    done = await asyncio.to_thread(lambda: kama(*arguments, stdin=viewer()))
    assert done.code == 0


async def test_something_else_that_answers_is_exit_code_3(kama: Kama) -> None:
    async with FakeNode() as server:  # its snapshot is null
        done = await once(kama, "-s", server.url)
    assert done.code == ExitCode.CANNOT_CONNECT and "expected a snapshot as kama" in done.err


async def test_another_protocol_names_both_versions(kama: Kama) -> None:
    shown = snapshot(SimulatedNode())
    shown.hello.protocol = 7
    async with FakeNode(snapshot=shown) as server:
        done = await once(kama, "-s", server.url)
    assert done.code == ExitCode.CANNOT_CONNECT and "expected monitor protocol 1, got 7" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--once", "--filter", "colour=red"), "expected a field of user"),
        (("--json",), "expected --once beside it"),
        (("--redact",), "expected --record FILE beside it"),
        (("--once", "--record", "x"), "expected a live dashboard to record"),
        (("--replay", "x", "--record", "y"), "expected a live dashboard to record"),
        (("--once", "--replay", "x"), "expected either --replay or --once"),
        (("--token-file", "-"), "a dashboard reads its keys from stdin"),
        (("--interval", "1ms"), "expected 250ms to 10s"),
        (("--interval", "1m"), "expected 250ms to 10s"),
        (("--speed", "0"), "greater than or equal to 0.1"),
        ((), "expected a terminal to draw on, got none\nhint: use kama monitor --once, or kama tail"),
    ],
)
def test_what_cannot_be_is_a_usage_error(kama: Kama, arguments: tuple[str, ...], told: str) -> None:
    done = kama("monitor", *arguments)
    assert done.code == ExitCode.USAGE and told in done.err and done.out == ""


# --- what the dashboard is given -----------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[MonitorOptions]:
    """What the dashboard was asked to show. It does not draw."""
    asked: list[MonitorOptions] = []
    screen = ModuleType("kama.tui.run")
    screen.run_monitor = asked.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kama.tui.run", screen)
    monkeypatch.setattr(monitor, "_has_terminal", lambda: True)
    return asked


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each tab of a browser would be given. Nothing is served."""
    told: list[list[str]] = []
    web = ModuleType("kama.tui.web")
    web.serve_in_browser = lambda arguments, port: told.append(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kama.tui.web", web)
    return told


def test_the_dashboard_gets_what_was_asked_for(drawn: list[MonitorOptions], tmp_path: Path) -> None:
    arguments = "-s http://a:1 -s http://b:2 --all --interval 1s --read-only --record r --redact --theme mono -f idle"
    assert cli.run(["monitor", *arguments.split()]) == 0
    (options,) = drawn
    assert (options.servers, options.follow_all) == (("http://a:1", "http://b:2"), True)
    assert (options.interval_ms, options.read_only, options.record, options.redact) == (1000, True, Path("r"), True)
    assert (options.theme, options.filter, options.token_note) == ("mono", "idle", "")


def test_its_token_is_read_again_each_time(drawn: list[MonitorOptions], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    assert cli.run(["monitor", "--token-file", str(file)]) == 0
    assert drawn[0].token() == "one"
    file.write_text("two")
    assert drawn[0].token() == "two"


@pytest.mark.parametrize(
    ("flags", "role"), [((), "viewer"), (("--admin",), "admin"), (("--admin", "--read-only"), "viewer")]
)
def test_a_token_of_its_own_is_said(
    drawn: list[MonitorOptions], secret: str, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], role: str
) -> None:
    from support import KEEPER

    monkeypatch.delenv("KAMA_TOKEN")
    assert cli.run(["monitor", *flags]) == 0
    assert drawn[0].token_note == f"with a token of 10 minutes as {role}, made from the local secret"
    assert KEEPER.verify(drawn[0].token()).role == role


def test_a_replay_needs_no_token(drawn: list[MonitorOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAMA_TOKEN")
    assert cli.run(["monitor", "--replay", "x", "--speed", "8"]) == 0
    assert (drawn[0].replay, drawn[0].speed, drawn[0].token_note) == (Path("x"), 8.0, "")


@pytest.mark.parametrize(
    "given",
    [
        "-s http://a:1 -s http://b:2 --all --interval 1s --filter idle --theme mono --ascii --web-actions --admin",
        "-s http://a:1 --replay x --speed 8 --token-file t --config c --data-dir d",
    ],
)
def test_each_tab_of_a_browser_is_given_what_the_command_was(
    drawn: list[MonitorOptions], served: list[list[str]], given: str
) -> None:
    assert cli.run(["monitor", "--web", *given.split()]) == 0
    assert cli.run(["monitor", *served[0]]) == 0
    in_terminal = [part for part in given.split() if part != "--web-actions"]
    in_terminal += [] if "--web-actions" in given else ["--read-only"]
    assert cli.run(["monitor", *in_terminal]) == 0
    assert drawn[0] == drawn[1]


def test_a_browser_is_given_no_more_rights_than_it_may_use(
    served: list[list[str]],
) -> None:
    assert cli.run(["monitor", "--web", "--admin"]) == 0
    assert "--read-only" in served[0] and "--admin" not in served[0]
