"""Logins: users who connect, are caught up, and leave; again and again."""

from __future__ import annotations

import asyncio
import itertools
import math
from time import perf_counter

from kama.bench.load import first_failure
from kama.bench.operator import operator
from kama.bench.plan import Issue, Plan, Seat
from kama.bench.tally import Tally
from kama.bench.transport import fastest_client
from kama.client import Connection, NodeClient
from kama.errors import Busy, CannotConnect, RateLimited, TimedOut

_AGAIN = 0.1


class Logins:
    """`window` users log in side by side; with a rate, each login is due at its own time.

    Raises (from `run`) CannotConnect and TimedOut when no node answers at the start, Unauthorised and Forbidden.
    """

    def __init__(self, plan: Plan, issue: Issue, tally: Tally) -> None:
        self._plan = plan
        self._issue = issue
        self._tally = tally
        self._started = 0

    async def run(self) -> None:
        plan, tally = self._plan, self._tally
        seats = plan.seats()
        tally.users = len(seats)
        with first_failure():
            async with operator(plan, self._issue) as nodes:
                await nodes.check()
            clients = [self._client(seat) for seat in seats]
            try:
                async with asyncio.TaskGroup() as tasks:
                    tally.start(plan.warmup, plan.duration)
                    lanes = [tasks.create_task(self._lane(clients, lane)) for lane in range(self._lanes)]
                    await asyncio.sleep(plan.warmup)
                    tally.begin()
                    await asyncio.sleep(plan.duration)
                    tally.end()
                    for lane in lanes:
                        lane.cancel()
                    self._count_unsent()
            finally:
                for _, client in clients:
                    await client.close()

    @property
    def _lanes(self) -> int:
        return min(self._plan.window, 2 * self._plan.pairs)

    def _client(self, seat: Seat) -> tuple[str, NodeClient]:
        token = self._issue(seat.user_id, False)
        return seat.user_id, fastest_client()(seat.node, lambda: token)

    def _count_unsent(self) -> None:
        if self._plan.rate:
            due = math.ceil((self._plan.warmup + self._plan.duration) * self._plan.rate)
            self._tally.unsent = max(0, due - self._started)

    async def _lane(self, clients: list[tuple[str, NodeClient]], lane: int) -> None:
        """The users of one lane, one after the other and then from the first again."""
        rate, start = self._plan.rate, perf_counter()
        turns = itertools.count(lane, self._lanes)
        for turn, (user_id, client) in zip(turns, itertools.cycle(clients[lane :: self._lanes]), strict=False):
            due = perf_counter() if rate is None else start + turn / rate
            await asyncio.sleep(due - perf_counter())
            self._started += 1
            await self._log_in(user_id, client, due)

    async def _log_in(self, user_id: str, client: NodeClient, due: float) -> None:
        tally = self._tally
        try:
            async with client.login(user_id, device="kama-bench") as connection:
                await self._wait_caught_up(connection)
                tally.logins += 1
                tally.record(tally.login, due)
        except (CannotConnect, TimedOut, Busy, RateLimited) as error:
            tally.failed_logins += 1
            await asyncio.sleep(error.retry_after if isinstance(error, RateLimited) else _AGAIN)

    async def _wait_caught_up(self, connection: Connection) -> None:
        try:
            while (await connection.receive()).get("event") != "caught_up":
                pass
        except CannotConnect:
            if connection.closed_with is not None:
                self._tally.close_codes[connection.closed_with[0]] += 1
            raise
