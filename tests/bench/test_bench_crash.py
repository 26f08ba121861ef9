"""kill -9 in the middle of a run: it goes on, and its ledger shows that nothing was lost, doubled or turned round."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support import NodeProcess, eventually, token

from kama.bench.load import Load
from kama.bench.plan import Plan
from kama.bench.result import Result
from kama.bench.tally import Tally


def issue(user_id: str, for_operator: bool) -> str:
    return token(user_id, "admin" if for_operator else "user")


@pytest.mark.heavy
async def test_a_node_that_is_killed_and_started_again_has_lost_nothing(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        plan = Plan((node.url,), pairs=10, duration=2.5, warmup=0.2, verify=True)
        tally = Tally()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(Load(plan, issue, tally).run())
            await eventually(lambda: tally.acked > 100)
            await asyncio.to_thread(node.kill)
            before = tally.acked
            await asyncio.to_thread(node.start)
            await eventually(lambda: tally.acked > before, seconds=30)
        told = Result(plan, tally, running.result()).as_dict()
    assert (told["verify"]["lost"], told["verify"]["duplicated"], told["verify"]["reordered"]) == (0, 0, 0)
    assert told["unacked"] == 0 and told["reconnects"] >= tally.users
    assert sum(told["close_codes"].values()) >= tally.users
