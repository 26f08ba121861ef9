"""Load: a run of messages from its first login to its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from time import monotonic

from kama.bench.ledger import Ledger, Verdict
from kama.bench.operator import Operator, operator
from kama.bench.plan import Issue, Plan, Seat, Stamp
from kama.bench.stream import Stream
from kama.bench.tally import Tally
from kama.bench.user import User
from kama.errors import KamaError, TimedOut, TooLarge
from kama.protocol import encode

LOGINS_AT_ONCE = 50
_LOGIN_TIMEOUT = 30.0
_LOOK_AGAIN = 0.05
_UNVERIFIED_SETTLE = 5.0


@contextlib.contextmanager
def first_failure() -> Iterator[None]:
    """What went wrong in a task group, as the one failure that it is to whoever asked for the run."""
    try:
        yield
    except BaseExceptionGroup as group:
        failures, other = group.split(KamaError)
        if failures is None or other is not None:
            raise
        raise _first(failures) from None


def _first(group: BaseExceptionGroup[KamaError]) -> KamaError:
    failure = group.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure


class Load:
    """`tally` is up to date while `run` runs, and what remains when it is cancelled or fails.

    Raises (from `run`) what a node answers to the first logins, to a message, or to the reading back of the store:
    CannotConnect, TimedOut, Unauthorised, Forbidden, TooLarge.
    """

    def __init__(self, plan: Plan, issue: Issue, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._talks = plan.talks()
        self._stamp = Stamp(plan.run, plan.message_size)
        self._ledger = Ledger() if plan.verify else None
        self._issue = issue

    async def run(self) -> Verdict | None:
        """None without `verify`."""
        with first_failure():
            async with operator(self._plan, self._issue) as nodes:
                await nodes.check()
                async with self._groups(nodes):
                    await self._talk()
                    if self._ledger is None:
                        return None
                    self._tally.phase = "reading back"
                    await nodes.read_back(self._talks, self._stamp, self._ledger)
                    return self._ledger.verdict()

    @contextlib.asynccontextmanager
    async def _groups(self, nodes: Operator) -> AsyncIterator[None]:
        try:
            if self._plan.pattern == "fanout":
                await nodes.make_groups(self._talks)
            yield
        finally:
            if left := await nodes.dissolve_groups():
                self._tally.warnings.append(f"could not dissolve {' '.join(left)}: kama group dissolve does")

    async def _talk(self) -> None:
        """Everybody is logged in within."""
        if self._ledger is not None:
            for talk in self._talks:
                self._ledger.open(talk.conversation, (seat.user_id for seat in talk.members))
        users = {seat.user_id: self._user(seat) for talk in self._talks for seat in talk.members}
        self._tally.users = len(users)
        async with asyncio.TaskGroup() as tasks:
            running = await self._log_in(tasks, list(users.values()))
            self._check_size()
            await self._measure(self._streams(users))
            for client in running:
                client.cancel()

    def _user(self, seat: Seat) -> User:
        return User(seat, self._issue, self._stamp, self._tally, self._ledger)

    async def _log_in(self, tasks: asyncio.TaskGroup, users: Sequence[User]) -> list[asyncio.Task[None]]:
        running: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(_LOGIN_TIMEOUT) as limit:
                for some in _batches(users, LOGINS_AT_ONCE):
                    running += [tasks.create_task(user.run()) for user in some]
                    for user in some:
                        await user.client.wait_caught_up()
                    limit.reschedule(asyncio.get_running_loop().time() + _LOGIN_TIMEOUT)
        except TimeoutError:
            there = sum(user.client.is_connected for user in users)
            raise TimedOut(
                f"{there} of {len(users)} users could log in within {_LOGIN_TIMEOUT:g} s",
                hint="the node's limits.connections may be too low, or this machine's limit of open files",
            ) from None
        return running

    def _check_size(self) -> None:
        """A frame that is too large would end its connection, again and again."""
        longest = self._stamp.write(10**9, 10**12)
        seat = self._talks[0].members[-1]
        frame = {"type": 0, "content": longest, "send_id": seat.user_id, "receive_id": seat.user_id}
        size = len(encode(frame | {"client_msg_id": "0" * 32}))
        for what, setting in ((size, "message_size"), (len(longest), "file_max_size")):
            if what > (most := self._tally.limits.get(setting, what)):
                raise TooLarge(f"expected messages of at most {most:g} (the node's limits.{setting}), got {what}")

    def _streams(self, users: dict[str, User]) -> list[Stream]:
        plan, numbers = self._plan, itertools.count()
        interval = len(self._talks) / plan.rate if plan.rate else None
        return [
            Stream(
                talk,
                [users[seat.user_id] for seat in talk.senders],
                self._tally,
                numbers,
                plan.window,
                interval,
                number / plan.rate if plan.rate else 0.0,
            )
            for number, talk in enumerate(self._talks)
        ]

    # --- the load

    async def _measure(self, streams: Sequence[Stream]) -> None:
        plan, tally = self._plan, self._tally
        async with asyncio.TaskGroup() as posting:
            tally.start(plan.warmup, plan.duration)
            running = [posting.create_task(stream.run(posting)) for stream in streams]
            await asyncio.sleep(plan.warmup)
            tally.begin()
            await asyncio.sleep(plan.duration)
            tally.end()
            for stream in running:
                stream.cancel()
            tally.unsent = sum(stream.count_unsent(plan.warmup + plan.duration) for stream in streams)
            await self._settle(streams)
            for under_load in streams:
                under_load.give_up()

    async def _settle(self, streams: Sequence[Stream]) -> None:
        """Until nothing is under way; not for ever."""
        self._tally.phase = "settling"
        deadline = monotonic() + (self._plan.settle if self._ledger else min(_UNVERIFIED_SETTLE, self._plan.settle))
        while self._is_under_way(streams) and monotonic() < deadline:
            await asyncio.sleep(_LOOK_AGAIN)

    def _is_under_way(self, streams: Sequence[Stream]) -> bool:
        if any(stream.under_way for stream in streams):
            return True
        return self._ledger is not None and self._ledger.outstanding > 0


def _batches(users: Sequence[User], size: int) -> Iterator[Sequence[User]]:
    for at in range(0, len(users), size):
        yield users[at : at + size]
