"""`kama bench --verify` through a proxy that loses, doubles or turns round: each fault is found, and counted right."""

from __future__ import annotations

import json
from typing import Any

import anyio.to_thread
import pytest
from fault_proxy import Fault, FaultProxy
from support import SECRET, RunningNode

from kama import cli

ARGUMENTS = ("--pairs", "3", "--duration", "400ms", "--warmup", "0", "--settle", "600ms", "--verify", "--json")


class Faults:
    """What was done, for the count that is expected."""

    def __init__(self) -> None:
        self.count = 0
        self._held: dict[str, str] = {}

    def nothing(self, _user_id: str, _seq: int, frame: str) -> list[str]:
        return [frame]

    def lose(self, user_id: str, seq: int, frame: str) -> list[str]:
        """All but the first five messages to receivers: nothing comes that would tell the client of a gap."""
        if "s" in user_id[8:] or seq <= 5:
            return [frame]
        self.count += 1
        return []

    def double(self, _user_id: str, seq: int, frame: str) -> list[str]:
        if seq % 10:
            return [frame]
        self.count += 1
        return [frame, frame]

    def turn_round(self, user_id: str, seq: int, frame: str) -> list[str]:
        """The fifth and the sixth message of every connection."""
        if seq == 5 and user_id not in self._held:
            self._held[user_id] = frame
            return []
        if seq == 6 and (held := self._held.get(user_id)):
            self._held[user_id] = ""
            self.count += 1
            return [frame, held]
        return [frame]


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_AUTH__SECRET", SECRET)


async def bench(node: RunningNode, fault: Fault, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    """The exit code, the object on stdout, and stderr."""
    async with FaultProxy(node.url, fault).serving() as proxy:
        code = await anyio.to_thread.run_sync(lambda: cli.run(["bench", "-s", proxy.url, *ARGUMENTS]))
    written = capsys.readouterr()
    # The node of a test writes its log to the same place, before.
    return code, json.loads(written.out.splitlines()[-1]), written.err


async def test_a_proxy_that_does_nothing_is_not_blamed(
    node: RunningNode, faults: Faults, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, err = await bench(node, faults.nothing, capsys)
    assert (code, err, told["verify"]["ok"]) == (0, "", True)
    assert told["acked"] > 20


async def test_what_is_lost_on_the_way_is_found(
    node: RunningNode, faults: Faults, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, err = await bench(node, faults.lose, capsys)
    assert faults.count > 0
    assert (code, told["verify"]["lost"], told["verify"]["not_received"]) == (1, faults.count, faults.count)
    assert (told["verify"]["duplicated"], told["verify"]["reordered"], told["verify"]["not_stored"]) == (0, 0, 0)
    assert json.loads(err)["error"]["message"].startswith(f"lost {faults.count}, duplicated 0, reordered 0 of ")


async def test_what_comes_twice_is_found_though_no_user_sees_it(
    node: RunningNode, faults: Faults, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, _ = await bench(node, faults.double, capsys)
    assert faults.count > 0
    assert (code, told["verify"]["duplicated"], told["verify"]["pushed_twice"]) == (1, faults.count, faults.count)
    assert (told["verify"]["lost"], told["verify"]["reordered"], told["verify"]["shown_twice"]) == (0, 0, 0)


async def test_what_comes_in_the_wrong_order_is_found_though_the_client_mends_it(
    node: RunningNode, faults: Faults, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, _ = await bench(node, faults.turn_round, capsys)
    assert faults.count == 6, "three pairs, and each of the two"
    assert (code, told["verify"]["reordered"], told["verify"]["pushed_out_of_order"]) == (1, 6, 6)
    assert (told["verify"]["lost"], told["verify"]["duplicated"], told["verify"]["shown_out_of_order"]) == (0, 0, 0)
