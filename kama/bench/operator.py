"""Operator: what a run needs of the nodes besides chat: that they answer, groups, and what is stored."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from time import monotonic
from typing import Any

from kama.bench.ledger import Ledger
from kama.bench.plan import Issue, Plan, Stamp, Talk
from kama.client import NodeClient
from kama.errors import Busy, CannotConnect, DatabaseFailed, KamaError, TimedOut
from kama.protocol import HISTORY_LIMIT_MAX, SEQ_MAX

# Who the log of a node names.
NAME = "Ubench"
_GROUPS = "/admin/groups"
_AT_ONCE = 8
_AGAIN = 0.2
_FAREWELL = 5.0


class Operator:
    """One client for each node, with an operator's token."""

    def __init__(self, plan: Plan, clients: Sequence[NodeClient]) -> None:
        self._plan = plan
        self._clients = clients
        self._made: list[str] = []

    async def check(self) -> None:
        """Raises CannotConnect or TimedOut unless every node answers, Unauthorised when it takes no token of ours."""
        for client in self._clients:
            await client.probe()
            await client.get(_GROUPS, limit=1)

    async def make_groups(self, talks: Iterable[Talk]) -> None:
        for talk in talks:
            members = [seat.user_id for seat in talk.members]
            body = {"group_id": talk.receive_id, "owner_id": members[0], "members": members[1:], "name": "kama bench"}
            await self._clients[0].post(_GROUPS, body)
            self._made.append(talk.receive_id)

    async def dissolve_groups(self) -> list[str]:
        """Gives those that could not be dissolved: a node that is away is not waited for."""
        with contextlib.suppress(KamaError, TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while self._made:
                    await self._clients[0].delete(f"{_GROUPS}/{self._made[-1]}")
                    self._made.pop()
        return self._made

    async def read_back(self, talks: Sequence[Talk], stamp: Stamp, ledger: Ledger) -> None:
        """Tell the ledger everything that the store has. Raises what a node answers when waiting does not mend it."""
        deadline = monotonic() + self._plan.settle
        waiting = iter(enumerate(talks))

        async def work() -> None:
            for number, talk in waiting:
                client = self._clients[number % len(self._clients)]
                await self._read_conversation(client, talk, stamp, ledger, deadline)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_AT_ONCE):
                tasks.create_task(work())

    async def _read_conversation(
        self, client: NodeClient, talk: Talk, stamp: Stamp, ledger: Ledger, deadline: float
    ) -> None:
        after_seq = 0
        while page := await self._page(client, talk, after_seq, deadline):
            for message in page:
                known = stamp.read(message["content"])
                ledger.stored(talk.conversation, message["seq"], known[0] if known is not None else None)
            # Were a page not to go on, the next one would be the same for ever.
            after_seq = max(after_seq + 1, *(message["seq"] for message in page))
            if len(page) < HISTORY_LIMIT_MAX or after_seq >= SEQ_MAX:
                return

    async def _page(self, client: NodeClient, talk: Talk, after_seq: int, deadline: float) -> list[dict[str, Any]]:
        path, query = _history_of(talk)
        while True:
            try:
                page: list[dict[str, Any]] = await client.get(
                    path, **query, after_seq=after_seq, limit=HISTORY_LIMIT_MAX
                )
                return page
            except (CannotConnect, TimedOut, Busy, DatabaseFailed):
                if monotonic() > deadline:
                    raise
            await asyncio.sleep(_AGAIN)


def _history_of(talk: Talk) -> tuple[str, dict[str, str]]:
    if talk.receive_id.startswith("G"):
        return "/message/getGroupMessageList", {"groupId": talk.receive_id}
    one, two = (seat.user_id for seat in talk.members)
    return "/message/getMessageList", {"userOneId": one, "userTwoId": two}


@contextlib.asynccontextmanager
async def operator(plan: Plan, issue: Issue) -> AsyncIterator[Operator]:
    token = issue(NAME, True)
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(NodeClient(node, lambda: token)) for node in plan.nodes]
        yield Operator(plan, clients)
