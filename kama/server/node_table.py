"""NodeTable: which nodes there are, as each announces itself in Redis, and who has which number in message ids.

kama:node:<name>      what a node announces, alive for a few heartbeats
kama:nodes            the names that were ever announced
kama:node_id:<n>      who has this number
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis

from kama.errors import CannotConnect, SettingsError
from kama.protocol import encode
from kama.server.directory import NodeInfo
from kama.server.kafka.records import NODES
from kama.server.leases import Lease

log = structlog.get_logger("kama.nodes")

NODE_TTL = 12.0
# A node that is cut off from Redis goes on making ids: nobody else may get its number meanwhile.
_NUMBER_TTL = 6 * 3600.0


class NodeTable:
    """`announce` gives this node as it is, once its number is known. Raises what Redis raises."""

    def __init__(self, redis: Redis, name: str, epoch: str, announce: Callable[[int], NodeInfo]) -> None:
        self._redis = redis
        self._name = name
        self._epoch = epoch
        self._announce = announce
        self._beats = 0
        self.number = 0
        self.known: Mapping[str, NodeInfo] = {}

    # --- heartbeats

    async def beat(self) -> bool:
        """Announce this node, and hear of the others. True when Redis had forgotten it.

        Takes another number when somebody else has got this node's, as after hours without Redis.
        """
        number_key = f"kama:node_id:{self.number}"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(f"kama:node:{self._name}", encode(self._announce(self.number)), px=_ms(NODE_TTL), get=True)
            pipe.sadd("kama:nodes", self._name)
            pipe.set(number_key, self._name, px=_ms(_NUMBER_TTL), nx=True)
            pipe.get(number_key)
            pipe.smembers("kama:nodes")
            before, _, _, holder, names = await pipe.execute()
        self.known = await self._read(name.decode() for name in names)
        if holder == self._name.encode():
            await self._redis.pexpire(number_key, _ms(_NUMBER_TTL))
        else:
            log.error("another node has this node's number in message ids: taking a new one", number=self.number)
            await self.take_number(None)
        self._beats += 1
        self._look_for_namesake(before)
        return before is None and self._beats > 1

    def _look_for_namesake(self, before: bytes | None) -> None:
        """What stood there at the first beat is of this node's life before; later, somebody else writes it."""
        if before is not None and self._beats > 1 and _epoch_of(before) != self._epoch:
            log.error("another node announces itself by this node's name: set node.name for each", name=self._name)

    async def look(self) -> None:
        """Hear of the others now, and not at the next beat."""
        names: Any = await self._redis.smembers("kama:nodes")
        self.known = await self._read(name.decode() for name in names)

    async def meet(self, leases: Iterable[Lease]) -> None:
        """A lease of a node that we do not know, or knew in an earlier life, is either a ghost's or of one that has
        just started: Redis knows."""
        if strangers := {lease.node for lease in leases if not self.is_alive(lease)} - {self._name}:
            met = await self._read(strangers)  # a heartbeat may put a new table in place meanwhile
            self.known = {**self.known, **met}

    async def _read(self, names: Iterable[str]) -> dict[str, NodeInfo]:
        raw: Any = await self._redis.mget([f"kama:node:{name}" for name in sorted(names)])
        infos: dict[str, NodeInfo] = {}
        for kept in filter(None, raw):
            try:
                info = _decode(kept)
            except msgspec.MsgspecError as error:
                log.error("another node's announcement cannot be read: are the versions the same?", error=str(error))
            else:
                infos[info.name] = info
        return infos

    def is_alive(self, lease: Lease) -> bool:
        """A lease of a node that is gone, or of its life before the last start, is nobody's."""
        if lease.node == self._name:
            return lease.epoch == self._epoch
        info = self.known.get(lease.node)
        return info is not None and info.epoch == lease.epoch

    async def withdraw(self) -> None:
        """The end of this node."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(f"kama:node:{self._name}", f"kama:node_id:{self.number}")
            pipe.srem("kama:nodes", self._name)
            await pipe.execute()

    # --- numbers

    async def take_number(self, wanted: int | None) -> None:
        """The wanted number, or a free one: sooner one that nobody ever had than one of a node that is gone.

        Raises SettingsError when the wanted one is another node's, CannotConnect when there is none left.
        """
        if wanted is not None:
            await self._take_wanted(wanted)
            return
        first = sum(self._name.encode()) % NODES
        numbers = [(first + step) % NODES for step in range(NODES)]
        for number in numbers:
            if await self._holder(number) == self._name:
                self.number = number
                return
        for number in numbers:
            if await self._take_from_the_dead(number):
                return
        raise CannotConnect(f"all {NODES} node numbers are taken", hint="end some nodes")

    async def _take_wanted(self, number: int) -> None:
        holder = await self._holder(number)
        if holder != self._name and not await self._take_from_the_dead(number):
            raise SettingsError(
                f"expected a number that no other node has, got {number}: it is {holder}'s", field="node.id"
            )
        self.number = number

    async def _holder(self, number: int) -> str:
        """Whose it is, once this node has asked for it."""
        key = f"kama:node_id:{number}"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(key, self._name, px=_ms(_NUMBER_TTL), nx=True)
            pipe.get(key)
            _, holder = await pipe.execute()
        return self._name if holder is None else str(holder.decode())

    async def _take_from_the_dead(self, number: int) -> bool:
        key = f"kama:node_id:{number}"
        holder: Any = await self._redis.get(key)
        if holder is not None and await self._redis.exists(f"kama:node:{holder.decode()}"):
            return False
        await self._redis.set(key, self._name, px=_ms(_NUMBER_TTL))
        self.number = number
        return True


_decode = msgspec.json.Decoder(NodeInfo).decode


def _epoch_of(announcement: bytes) -> str:
    try:
        return _decode(announcement).epoch
    except msgspec.MsgspecError:
        return ""


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
