"""Runs against real nodes: every pattern, a rate, several addresses, limits, and users who are sent away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import RunningNode, StartNode, bearer, eventually, token

from kama.bench.ledger import Verdict
from kama.bench.load import Load
from kama.bench.logins import Logins
from kama.bench.plan import Plan
from kama.bench.result import Result
from kama.bench.tally import Tally
from kama.errors import TooLarge, Unauthorised

SHORT: dict[str, Any] = {"duration": 0.5, "warmup": 0.1, "settle": 5.0, "verify": True}


def issue(user_id: str, for_operator: bool) -> str:
    return token(user_id, "admin" if for_operator else "user")


async def load(plan: Plan) -> Result:
    tally = Tally()
    return Result(plan, tally, await Load(plan, issue, tally).run())


async def test_a_relay_is_measured_and_nothing_of_it_is_lost(node: RunningNode) -> None:
    told = (await load(Plan((node.url,), pairs=3, **SHORT))).as_dict()
    assert told["verify"]["ok"] and told["unacked"] == 0
    assert told["sent"] == told["acked"] == told["received"] > 0
    for name in ("accept", "receive"):
        latency = told["latency_ms"][name]
        assert 0 < latency["p50"] <= latency["p99"] <= latency["max"] and 0 < latency["count"] < told["sent"]
    assert told["per_second"]["acked"] > 0 and told["cpu"] > 0 and told["logins"] == 6


async def test_every_member_of_a_group_receives_it_and_the_groups_are_dissolved(node: RunningNode) -> None:
    plan = Plan((node.url,), pattern="fanout", groups=2, group_size=4, **SHORT)
    told = (await load(plan)).as_dict()
    assert told["verify"]["ok"] and told["received"] == 3 * told["sent"] > 0
    answer = await node.request("GET", "/admin/groups", headers=bearer("Uadmin", "admin"))
    assert answer.json()["data"]["groups"] == []


async def test_logins_are_counted_and_timed(node: RunningNode) -> None:
    plan, tally = Plan((node.url,), pattern="connect", pairs=3, duration=0.5, warmup=0.1), Tally()
    await Logins(plan, issue, tally).run()
    told = Result(plan, tally).as_dict()
    assert told["logins"] > 5 and told["failed_logins"] == 0 and told["verify"] is None
    assert told["per_second"]["logins"] > 0 and told["latency_ms"]["login"]["p50"] > 0
    await eventually(lambda: not len(node.node.registry))


async def test_what_is_late_from_the_beginning_is_measured_too(start_node: StartNode) -> None:
    """All that gets through while it is measured was due before."""
    node = await start_node(limits={"messages_per_second": 20, "burst": 1})
    told = (await load(Plan((node.url,), pairs=1, rate=1000, duration=0.5, warmup=0.5))).as_dict()
    assert told["latency_ms"]["accept"]["count"] > 5 and told["latency_ms"]["receive"]["max"] > 400


@pytest.mark.parametrize("pattern", ["relay", "connect"])
async def test_a_rate_is_kept(node: RunningNode, pattern: Any) -> None:
    tally = Tally()
    plan = Plan((node.url,), pattern=pattern, pairs=4, rate=60, window=100, duration=0.6, warmup=0.0)
    await (Logins if pattern == "connect" else Load)(plan, issue, tally).run()
    done = tally.logins if pattern == "connect" else tally.sent
    assert 33 <= done <= 37 and tally.unsent <= 2


async def test_with_a_rate_the_time_a_message_had_to_wait_counts(start_node: StartNode) -> None:
    """Four times what the node lets through: the last message goes out long after it was due."""
    node = await start_node(limits={"messages_per_second": 20, "burst": 1})
    result = await load(Plan((node.url,), pairs=1, rate=80, window=100, duration=0.7, warmup=0.0))
    told = result.as_dict()
    assert told["latency_ms"]["accept"]["max"] > 400
    assert told["unsent"] > 30 and told["sent"] < 30
    assert any("--rate is more than could be done" in warning for warning in told["warnings"])


async def test_the_nodes_limit_is_kept_to_and_told(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 20, "burst": 5})
    told = (await load(Plan((node.url,), pairs=1, **SHORT))).as_dict()
    assert told["verify"]["ok"] and told["held_back"] > 0 and told["dismissed"] == 0
    assert told["sent"] < 30
    (warning,) = (warning for warning in told["warnings"] if "limits.messages_per_second" in warning)
    assert "(20 for each user, burst 5)" in warning


async def test_a_connection_that_ends_is_survived_and_counted(node: RunningNode) -> None:
    plan, tally = Plan((node.url,), pairs=2, **{**SHORT, "duration": 1.0}), Tally()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Load(plan, issue, tally).run())
        await eventually(lambda: tally.acked > 10)
        conns = [conn for seat in plan.seats() for conn in node.node.registry.get(seat.user_id)]
        for conn, code in zip(conns, (1001, 4008, 4010, 1011), strict=True):
            conn.close(code)
    told = Result(plan, tally, running.result()).as_dict()
    assert told["verify"]["ok"] and told["unacked"] == 0
    assert told["close_codes"] == {"1001": 1, "1011": 1, "4008": 1, "4010": 1} and told["reconnects"] == 4


async def test_who_is_kicked_stays_away_and_is_not_waited_for(node: RunningNode) -> None:
    plan, tally = Plan((node.url,), pairs=2, **{**SHORT, "duration": 0.6}), Tally()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Load(plan, issue, tally).run())
        await eventually(lambda: tally.acked > 10)
        body = {"user_id": plan.seats()[1].user_id}
        await node.request("POST", "/admin/kick", json=body, headers=bearer("Uadmin", "admin"))
    told = Result(plan, tally, running.result()).as_dict()
    assert (told["verify"]["ok"], told["dismissed"], told["close_codes"]) == (True, 1, {"4002": 1})
    assert any("sent away for good" in warning for warning in told["warnings"])


async def test_without_verify_there_is_no_verdict(node: RunningNode) -> None:
    result = await load(Plan((node.url,), pairs=1, duration=0.2, warmup=0.0))
    assert result.verdict is None and result.as_dict()["verify"] is None


async def test_messages_that_the_node_would_never_take_are_not_tried(start_node: StartNode) -> None:
    node = await start_node(limits={"file_max_size": 100})
    with pytest.raises(TooLarge, match="limits.file_max_size"):
        await load(Plan((node.url,), pairs=1, **SHORT))


async def test_a_secret_that_is_not_the_nodes_ends_it_at_once(node: RunningNode) -> None:
    with pytest.raises(Unauthorised, match="does not match"):
        await Load(Plan((node.url,), **SHORT), lambda user_id, _: token(user_id)[:-5] + "AAAAA", Tally()).run()


def test_a_result_has_its_rows_also_before_anything_was_measured() -> None:
    for pattern in ("relay", "fanout", "connect"):
        result = Result(Plan(("http://127.0.0.1:1",), pattern=pattern), Tally(), Verdict(unacked=2))  # type: ignore[arg-type]
        assert result.rows()[-1][:2] == ("unacked", "2") and result.as_dict()["measured_seconds"] == 0
