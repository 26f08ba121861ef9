"""RedisDirectory: leases in Redis. A node that dies takes its leases with it, at the latest when they run out.

    kama:node:<name>      what a node announces, alive for NODE_TTL after each beat
    kama:nodes            the names that were ever announced
    kama:node_id:<n>      who has this number in message ids
    kama:where:<user>     one lease a connection, <node>|<epoch>|<connection>|<since>|<posts only>, by its end

While Redis is away everybody may be everywhere: deliveries go to all nodes that were known last. Once it is back, the
node announces all of its connections again, and lets them look for what they missed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from kama import __version__
from kama.errors import CannotConnect, Forbidden, RateLimited
from kama.monitor_protocol import Node
from kama.protocol import encode
from kama.server.directory import NodeInfo
from kama.server.kafka_records import NODES
from kama.server.registry import ClientRegistry, MultiLogin
from kama.server.tasks import cancel, spawn
from kama.server.ws_gateway import UserConn

log = structlog.get_logger("kama.directory")

_TIMEOUT = 1.0
_PATIENCE = 5.0
_CONNECTIONS = 16
_BEAT = 3.0
_NODE_TTL = 12.0
_LEASE_TTL = 60.0
_RENEW = 20.0
_ID_TTL = 60.0
_SWEEP = 60.0
# By then each of the others has heard of a new node.
_NEW = 2 * _BEAT
_CHUNK = 500
_decode_info = msgspec.json.Decoder(NodeInfo).decode


@dataclass(frozen=True, slots=True)
class _Lease:
    node: str
    epoch: str
    conn_id: str
    since_ms: int
    post_only: bool

    @classmethod
    def read(cls, member: bytes) -> _Lease | None:
        """None when it is none of ours."""
        try:
            node, epoch, conn_id, since, post_only = member.decode().rsplit("|", 4)
            return cls(node, epoch, conn_id, int(since), post_only == "1")
        except ValueError:
            return None

    def write(self) -> str:
        return f"{self.node}|{self.epoch}|{self.conn_id}|{self.since_ms}|{int(self.post_only)}"


class RedisDirectory:
    """`resync` is called when this node may have been passed over for a while, `sweep` now and then with all nodes;
    `describe` gives what others see of this node."""

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
        self._describe = describe
        self._swept = time.monotonic()
        self._known: dict[str, NodeInfo] = {}
        self._id = 0
        self._away = False
        self._renewed = 0.0
        # A cancellation while the Redis client times out or lets go of a connection may be lost in it.
        self._closed = False
        self._beating: asyncio.Task[None] | None = None
        self._is_new = True
        self._announced = 0.0
        self._passed_over = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._leaving: list[tuple[str, str]] = []
        self._left = asyncio.Event()
        self._removing: asyncio.Task[None] | None = None

    # --- start and end

    async def start(self, wanted_id: int | None) -> int:
        """Announce this node and take a number for its message ids. Raises CannotConnect."""
        try:
            self._id = await self._take_id() if wanted_id is None else wanted_id
            await self._beat()
            self._announced = time.monotonic()
        except (RedisError, OSError) as error:
            raise CannotConnect(f"no Redis answers at redis.url: {error}", hint="start it, or set redis.url") from None
        self._beating = spawn(self._beat_for_ever(), name="heartbeat")
        self._looking = spawn(self._look_for_ever(), name="resync")
        self._removing = spawn(self._remove_for_ever(), name="leases that end")
        return self._id

    async def close(self) -> None:
        if self._beating is None:
            await self._redis.aclose()
            return
        self._closed = True
        for task in (self._beating, self._looking, self._sweeping):
            await cancel(task)
        await cancel(self._removing)
        self._beating = None
        await self._remove()
        try:
            async with asyncio.timeout(_TIMEOUT), self._redis.pipeline(transaction=False) as pipe:
                pipe.delete(f"kama:node:{self._name}", f"kama:node_id:{self._id}")
                pipe.srem("kama:nodes", self._name)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("Redis was not told of the end: leases run out by themselves", error=repr(error))
        await self._redis.aclose()

    async def _take_id(self) -> int:
        first = sum(self._name.encode()) % NODES
        for step in range(NODES):
            number = (first + step) % NODES
            key = f"kama:node_id:{number}"
            if await self._redis.set(key, self._name, nx=True, px=int(_ID_TTL * 1000)):
                return number
            if await self._redis.get(key) == self._name.encode():
                return number
        raise CannotConnect(f"all {NODES} node numbers are taken", hint="set node.id for each node")

    # --- the heartbeat

    async def _beat_for_ever(self) -> None:
        while not self._closed:
            await asyncio.sleep(_BEAT)
            try:
                was_forgotten = await self._beat()
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
                    self._sweeping = spawn(self._sweep(list(self._known)), name="sweep")
            except (RedisError, OSError) as error:
                self._went_away(error)
            except Exception as error:
                log.error("heartbeat failed", exc_info=error)

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

    async def _beat(self) -> bool:
        """Announce this node, and hear of the others. True when Redis had forgotten it."""
        info = NodeInfo(
            name=self._name,
            epoch=self.epoch,
            id=self._id,
            address=self._address,
            version=__version__,
            connections=len(self._registry),
            beat_ms=time.time_ns() // 1_000_000,
            node=self._describe(),
        )
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(f"kama:node:{self._name}", encode(info), px=int(_NODE_TTL * 1000), get=True)
            pipe.sadd("kama:nodes", self._name)
            pipe.set(f"kama:node_id:{self._id}", self._name, px=int(_ID_TTL * 1000))
            pipe.smembers("kama:nodes")
            before, _, _, names = await pipe.execute()
        self._known = await self._read_infos(name.decode() for name in names)
        return before is None and self._beating is not None

    async def _read_infos(self, names: Iterable[str]) -> dict[str, NodeInfo]:
        raw: Any = await self._redis.mget([f"kama:node:{name}" for name in sorted(names)])
        infos: dict[str, NodeInfo] = {}
        for kept in filter(None, raw):
            try:
                info = _decode_info(kept)
            except msgspec.MsgspecError as error:
                log.error("another node's announcement cannot be read: are the versions the same?", error=str(error))
            else:
                infos[info.name] = info
        return infos

    async def _renew(self) -> None:
        conns = list(self._registry)
        for start in range(0, len(conns), _CHUNK):
            async with self._redis.pipeline(transaction=False) as pipe:
                for conn in conns[start : start + _CHUNK]:
                    self._write(pipe, conn)
                await pipe.execute()
            for conn in conns[start : start + _CHUNK]:
                if conn.closing is not None:  # it left while its lease was on the way
                    self.leave(conn)
        self._renewed = time.monotonic()

    def _went_away(self, error: Exception) -> None:
        if not self._away:
            log.warning("Redis does not answer: deliveries go to all nodes until it is back", error=repr(error))
        self._away = True

    # --- leases

    def _lease(self, conn: UserConn) -> _Lease:
        return _Lease(self._name, self.epoch, conn.id, int(conn.since * 1000), conn.post_only)

    def _write(self, pipe: Any, conn: UserConn) -> None:
        key = _key(conn.user_id)
        pipe.zadd(key, {self._lease(conn).write(): _now_ms() + int(_LEASE_TTL * 1000)})
        pipe.pexpire(key, int(_LEASE_TTL * 1000))

    async def enter(self, conn: UserConn) -> Sequence[str]:
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zremrangebyscore(_key(conn.user_id), "-inf", _now_ms())
                self._write(pipe, conn)
                pipe.zrange(_key(conn.user_id), 0, -1)
                members = (await pipe.execute())[-1]
            await self._meet([members])
        except (RedisError, OSError) as error:
            self._went_away(error)
            return ()
        others = [lease for lease in self._alive(members) if lease.conn_id != conn.id]
        try:
            return self._judge(conn, others)
        except (Forbidden, RateLimited):
            self.leave(conn)
            raise

    def _judge(self, conn: UserConn, others: Sequence[_Lease]) -> Sequence[str]:
        """What `multi_login` and `connections_per_user` say to one more connection, on all nodes together."""
        if conn.post_only or self._multi_login == "allow":
            replaced: list[_Lease] = []
        else:
            # Of two that come at once on two nodes, the later one stays.
            mine = self._lease(conn)
            older = [
                lease
                for lease in others
                if not lease.post_only and (lease.since_ms, lease.conn_id) < (mine.since_ms, mine.conn_id)
            ]
            if older and self._multi_login == "reject":
                raise Forbidden(f"{conn.user_id} is logged in already (limits.multi_login = reject)")
            replaced = older if self._multi_login == "replace" else []
        kept = len(others) - len(replaced)
        if kept >= self._per_user:
            raise RateLimited(
                f"{conn.user_id} has {kept} of {self._per_user} connections (limits.connections_per_user)",
                retry_after=5,
            )
        return [lease.conn_id for lease in replaced if lease.node != self._name]

    def leave(self, conn: UserConn) -> None:
        self._leaving.append((_key(conn.user_id), self._lease(conn).write()))
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
            for start in range(0, len(leaving), _CHUNK):
                async with self._redis.pipeline(transaction=False) as pipe:
                    for key, lease in leaving[start : start + _CHUNK]:
                        pipe.zrem(key, lease)
                    await pipe.execute()
        except (RedisError, OSError) as error:
            self._went_away(error)

    def _alive(self, members: Iterable[bytes]) -> list[_Lease]:
        leases = filter(None, map(_Lease.read, members))
        return [lease for lease in leases if self._is_alive(lease)]

    def _is_alive(self, lease: _Lease) -> bool:
        """A lease of a node that is gone, or of its life before the last start, is nobody's."""
        if lease.node == self._name:
            return lease.epoch == self.epoch
        info = self._known.get(lease.node)
        return info is not None and info.epoch == lease.epoch

    # --- look-ups

    @property
    def others(self) -> Collection[str]:
        return [name for name in self._known if name != self._name]

    @property
    def nodes(self) -> Sequence[NodeInfo]:
        return sorted(self._known.values(), key=lambda info: info.name)

    @property
    def trouble(self) -> str:
        return "does not answer: deliveries go to all nodes until it is back" if self._away else ""

    async def nodes_of(self, users: Collection[str]) -> Mapping[str, Collection[str]]:
        others = self.others
        if not others:
            return {}
        if not self._away:
            try:
                return await self._look_up(list(users))
            except (RedisError, OSError) as error:
                self._went_away(error)
        return dict.fromkeys(users, others)

    async def _look_up(self, users: Sequence[str]) -> Mapping[str, Collection[str]]:
        now = _now_ms()
        found: dict[str, Collection[str]] = {}
        for start in range(0, len(users), _CHUNK):
            chunk = users[start : start + _CHUNK]
            async with self._redis.pipeline(transaction=False) as pipe:
                for user in chunk:
                    pipe.zrangebyscore(_key(user), now, "+inf")
                held = await pipe.execute()
            await self._meet(held)
            for user, members in zip(chunk, held, strict=True):
                nodes = {lease.node for lease in self._alive(members)} - {self._name}
                if nodes:
                    found[user] = nodes
        return found

    async def _meet(self, held: Iterable[Sequence[bytes]]) -> None:
        """A lease of a node that we do not know, or knew in an earlier life, is either a ghost's or of one that has
        just started: Redis knows."""
        leases = filter(None, (_Lease.read(member) for members in held for member in members))
        if strangers := {lease.node for lease in leases if not self._is_alive(lease)} - {self._name}:
            met = await self._read_infos(strangers)  # a heartbeat may put a new dict in place meanwhile
            self._known |= met

    async def count(self, user_id: str, connection_ids: Collection[str] | None = None) -> int:
        try:
            members: Any = await self._redis.zrangebyscore(_key(user_id), _now_ms(), "+inf")
            await self._meet([members])
        except (RedisError, OSError) as error:
            self._went_away(error)
            return 0
        return sum(
            lease.node != self._name and (connection_ids is None or lease.conn_id in connection_ids)
            for lease in self._alive(members)
        )


def _key(user_id: str) -> str:
    return f"kama:where:{user_id}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
