"""RedisDirectory: who is where, by leases in Redis. A node that dies takes its leases with it, at the latest when they
run out.

While Redis is away everybody may be everywhere: deliveries go to all nodes that were known last. Once it is back, the
node announces all of its connections again, and lets them look for what they missed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from kama import __version__
from kama.errors import CannotConnect, Forbidden, RateLimited
from kama.monitor_protocol import Node
from kama.server.directory import NodeInfo
from kama.server.leases import Lease, Leases
from kama.server.node_table import NodeTable
from kama.server.registry import ClientRegistry, MultiLogin
from kama.server.tasks import cancel, spawn
from kama.server.ws_gateway import UserConn

log = structlog.get_logger("kama.directory")

_TIMEOUT = 1.0
_PATIENCE = 5.0
_CONNECTIONS = 16
_BEAT = 3.0
_RENEW = 20.0
_SWEEP = 60.0
# By then each of the others has heard of a new node, whatever became of its word to them.
_NEW = 2 * _BEAT


class RedisDirectory:
    """`resync` is called when this node may have been passed over for a while, `sweep` now and then with all nodes,
    `renumber` when another number has to stand in message ids; `describe` gives what others see of this node."""

    def __init__(
        self,
        url: str,
        name: str,
        registry: ClientRegistry,
        *,
        address: str,
        per_user: int,
        multi_login: MultiLogin,
        resync: Callable[[], Awaitable[None]],
        sweep: Callable[[Collection[str]], Coroutine[Any, Any, None]],
        renumber: Callable[[int], None],
        describe: Callable[[], Node | None] = lambda: None,
    ) -> None:
        # Everybody who logs in at once asks at once: they share a few connections, and wait for their turn.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_PATIENCE,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=_TIMEOUT,
            socket_timeout=_TIMEOUT,
        )
        self._redis: Redis = Redis.from_pool(pool)
        self._name = name
        self.epoch = secrets.token_hex(4)
        self._registry = registry
        self._address = address
        self._per_user = per_user
        self._multi_login = multi_login
        self._resync = resync
        self._sweep = sweep
        self._renumber = renumber
        self._table = NodeTable(self._redis, name, self.epoch, self._announcement)
        self._leases = Leases(self._redis, name, self.epoch)
        self._describe = describe
        self._swept = time.monotonic()
        self._away = False
        self._renewed = 0.0
        # Asked in each round: the Redis client has been seen to swallow the cancellation of a task that waits in it.
        self._closed = False
        self._beating: asyncio.Task[None] | None = None
        self._is_new = True
        self._announced = 0.0
        self._passed_over = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._leaving: list[tuple[str, Lease]] = []
        self._left = asyncio.Event()
        self._removing: asyncio.Task[None] | None = None

    # --- start and end

    async def start(self, wanted_id: int | None) -> int:
        """Announce this node and take a number for its message ids. Raises CannotConnect, SettingsError."""
        try:
            await self._table.take_number(wanted_id)
            await self._table.beat()
            self._announced = time.monotonic()
        except (RedisError, OSError) as error:
            raise CannotConnect(f"no Redis answers at redis.url: {error}", hint="start it, or set redis.url") from None
        self._beating = spawn(self._beat_for_ever(), name="heartbeat")
        self._looking = spawn(self._look_for_ever(), name="resync")
        self._removing = spawn(self._remove_for_ever(), name="leases that end")
        return self._table.number

    async def close(self) -> None:
        if self._beating is None:
            await self._redis.aclose()
            return
        self._closed = True
        for task in (self._beating, self._looking, self._sweeping, self._removing):
            await cancel(task)
        self._beating = None
        await self._remove()
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._table.withdraw()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("Redis was not told of the end: leases run out by themselves", error=repr(error))
        await self._redis.aclose()

    def _announcement(self, number: int) -> NodeInfo:
        return NodeInfo(
            name=self._name,
            epoch=self.epoch,
            id=number,
            address=self._address,
            version=__version__,
            connections=len(self._registry),
            beat_ms=time.time_ns() // 1_000_000,
            node=self._describe(),
        )

    # --- the heartbeat

    async def _beat_for_ever(self) -> None:
        while not self._closed:
            await asyncio.sleep(_BEAT)
            try:
                await self._beat()
            except (RedisError, OSError) as error:
                self._went_away(error)
            except Exception as error:
                log.error("heartbeat failed", exc_info=error)

    async def _beat(self) -> None:
        number = self._table.number
        was_forgotten = await self._table.beat()
        if self._table.number != number:
            self._renumber(self._table.number)
        if self._away or was_forgotten or time.monotonic() - self._renewed > _RENEW:
            await self._renew()
        if self._away or was_forgotten:
            log.info("Redis knows this node again: its connections look for what they missed")
            self._away = False
            self._passed_over.set()
        if self._is_new and time.monotonic() - self._announced > _NEW:
            self._is_new = False
            self._passed_over.set()
        if time.monotonic() - self._swept > _SWEEP and (self._sweeping is None or self._sweeping.done()):
            self._swept = time.monotonic()
            self._sweeping = spawn(self._sweep(list(self._table.known)), name="sweep")

    async def _look_for_ever(self) -> None:
        """Beside the heartbeat: a store or a Kafka that takes long must not make this node look dead."""
        while not self._closed:
            await self._passed_over.wait()
            self._passed_over.clear()
            try:
                await self._resync()
            except Exception as error:
                log.warning("connections cannot look for what they missed: trying again", error=repr(error))
                self._passed_over.set()
                await asyncio.sleep(_BEAT)

    async def _renew(self) -> None:
        conns = list(self._registry)
        await self._leases.renew(conns)
        for conn in conns:
            if conn.closing is not None:  # it left while its lease was on the way
                self.leave(conn)
        self._renewed = time.monotonic()

    def _went_away(self, error: Exception) -> None:
        if not self._away:
            log.warning("Redis does not answer: deliveries go to all nodes until it is back", error=repr(error))
        self._away = True

    # --- who comes and goes

    async def check(self, user_id: str, *, post_only: bool = False) -> None:
        elsewhere = await self._elsewhere(user_id)
        self._judge(user_id, post_only, elsewhere, elsewhere, len(self._registry.get(user_id)))

    async def enter(self, conn: UserConn) -> Sequence[str]:
        try:
            leases = await self._leases.enter(conn)
            await self._table.meet(leases)
        except (RedisError, OSError) as error:
            self._went_away(error)
            return ()
        elsewhere = self._alive_elsewhere(leases)
        # Of two that come at once on two nodes, the later one stays.
        mine = self._leases.of(conn)
        older = [lease for lease in elsewhere if (lease.since_ms, lease.conn_id) < (mine.since_ms, mine.conn_id)]
        here = sum(other is not conn for other in self._registry.get(conn.user_id))
        try:
            return self._judge(conn.user_id, conn.post_only, elsewhere, older, here)
        except (Forbidden, RateLimited):
            self.leave(conn)
            raise

    def _judge(
        self, user_id: str, post_only: bool, elsewhere: Sequence[Lease], older: Sequence[Lease], here: int
    ) -> Sequence[str]:
        """What `multi_login` and `connections_per_user` say to one more connection, on all nodes together.

        Gives the ids of those elsewhere that it replaces. What `multi_login` says of those here, the registry knows.
        """
        rivals = [] if post_only or self._multi_login == "allow" else [it for it in older if not it.post_only]
        if rivals and self._multi_login == "reject":
            raise Forbidden(f"{user_id} is logged in already (limits.multi_login = reject)")
        kept = here + len(elsewhere) - len(rivals)
        if kept >= self._per_user:
            raise RateLimited(
                f"{user_id} has {kept} of {self._per_user} connections (limits.connections_per_user)",
                retry_after=5,
            )
        return [lease.conn_id for lease in rivals]

    def leave(self, conn: UserConn) -> None:
        self._leaving.append((conn.user_id, self._leases.of(conn)))
        self._left.set()

    async def _remove_for_ever(self) -> None:
        while not self._closed:
            await self._left.wait()
            self._left.clear()
            await self._remove()

    async def _remove(self) -> None:
        """What cannot be removed runs out."""
        leaving, self._leaving = self._leaving, []
        try:
            await self._leases.remove(leaving)
        except (RedisError, OSError) as error:
            self._went_away(error)

    # --- look-ups

    @property
    def others(self) -> Collection[str]:
        return [name for name in self._table.known if name != self._name]

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return sorted(self._table.known.values(), key=lambda info: info.name)

    async def look(self) -> None:
        try:
            await self._table.look()
        except (RedisError, OSError) as error:
            self._went_away(error)

    @property
    def trouble(self) -> str:
        return "does not answer: deliveries go to all nodes until it is back" if self._away else ""

    async def nodes_of(self, users: Collection[str]) -> Mapping[str, Collection[str]]:
        others = self.others
        if not others:
            return {}
        if not self._away:
            try:
                return await self._look_up(users)
            except (RedisError, OSError) as error:
                self._went_away(error)
        return dict.fromkeys(users, others)

    async def _look_up(self, users: Collection[str]) -> Mapping[str, Collection[str]]:
        held = await self._leases.find(users)
        await self._table.meet(lease for leases in held.values() for lease in leases)
        found = {user: {lease.node for lease in self._alive_elsewhere(leases)} for user, leases in held.items()}
        return {user: nodes for user, nodes in found.items() if nodes}

    async def count(self, user_id: str, connection_ids: Collection[str] | None = None) -> int:
        elsewhere = await self._elsewhere(user_id)
        return sum(connection_ids is None or lease.conn_id in connection_ids for lease in elsewhere)

    async def _elsewhere(self, user_id: str) -> Sequence[Lease]:
        """The user's leases on other nodes; none while Redis is away."""
        try:
            leases = (await self._leases.find([user_id]))[user_id]
            await self._table.meet(leases)
        except (RedisError, OSError) as error:
            self._went_away(error)
            return ()
        return self._alive_elsewhere(leases)

    def _alive_elsewhere(self, leases: Iterable[Lease]) -> list[Lease]:
        return [lease for lease in leases if lease.node != self._name and self._table.is_alive(lease)]
