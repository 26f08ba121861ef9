"""The directory in a real Redis: what a lease, a look-up and a heartbeat cost with many users and many nodes."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from unittest.mock import patch

from redis.asyncio import Redis

from benchmarks.scale.announced import announced, long_lives, of_node, user_ids
from benchmarks.scale.places import Places, RedisMeter
from benchmarks.scale.sizes import Sizes
from benchmarks.scale.table import Table, median, p99
from kama.server import directory_redis, leases

_RENEWALS_PER_LEASE = 1 / directory_redis._RENEW
_BEATS_PER_NODE = 1 / directory_redis._BEAT


async def measure(places: Places, sizes: Sizes) -> list[Table]:
    leases = Table(
        "Leases: one connection a user",
        ("users", "nodes", "bytes/lease", "Redis us/renewal", "node us/renewal", "renewals/s", "% of a Redis core"),
    )
    look_ups = Table(
        "Look-ups of random users, one batch at a time",
        ("users", "nodes", "batch", "p50 ms", "p99 ms", "Redis us/user", "node us/user"),
    )
    for users, nodes in sizes.leases:
        async with places.empty_redis() as client:
            with long_lives():
                await _measure_leases(places.redis, client, users, nodes, leases)
                for batch in sizes.batches:
                    await _measure_look_ups(places.redis, client, users, nodes, batch, sizes.look_ups, look_ups)
    return [leases, look_ups, await _heartbeats(places, sizes), await _expiry(places, sizes)]


async def _measure_leases(url: str, client: Redis, users: int, nodes: int, table: Table) -> None:
    everybody = user_ids(users)
    before = (await client.info("memory"))["used_memory"]
    meter = RedisMeter(client)
    await meter.start()
    cpu = 0.0
    for number in range(nodes):
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(announced(url, number, of_node(everybody, number, nodes)))
            began = time.process_time()
            await node._renew()
            cpu += time.process_time() - began
    redis_us = (await meter.read())[0] / users
    taken = (await client.info("memory"))["used_memory"] - before
    renewals = users * _RENEWALS_PER_LEASE
    share = renewals * redis_us / 1e6 * 100
    table.add(users, nodes, taken / users, redis_us, cpu / users * 1e6, renewals, share)


async def _measure_look_ups(
    url: str, client: Redis, users: int, nodes: int, batch: int, count: int, table: Table
) -> None:
    everybody = user_ids(users)
    random.seed(batch)
    wanted = [random.sample(everybody, min(batch, users)) for _ in range(count)]
    async with announced(url, nodes) as asker:
        await asker.nodes_of(wanted[0])
        meter = RedisMeter(client)
        await meter.start()
        times: list[float] = []
        began_cpu = time.process_time()
        for some in wanted:
            began = time.perf_counter()
            found = await asker.nodes_of(some)
            times.append((time.perf_counter() - began) * 1e3)
            if len(found) != len(some):
                raise RuntimeError(f"expected all of {len(some)} users somewhere, got {len(found)}")
        cpu = time.process_time() - began_cpu
        redis_us = (await meter.read())[0]
    asked = count * len(wanted[0])
    table.add(users, nodes, batch, median(times), p99(times), redis_us / asked, cpu / asked * 1e6)


async def _heartbeats(places: Places, sizes: Sizes) -> Table:
    table = Table(
        "Heartbeats, each node every 3 s",
        ("nodes", "ms/beat", "KiB/beat", "Redis us/beat", "node us/beat", "cluster KiB/s", "% of a Redis core"),
    )
    for nodes in sizes.announcements:
        async with places.empty_redis() as client:
            with long_lives():
                table.add(nodes, *await _beat(places.redis, client, nodes, sizes.beats))
    return table


async def _beat(url: str, client: Redis, nodes: int, count: int) -> Sequence[float]:
    for number in range(nodes - 1):
        async with announced(url, number):
            pass
    async with announced(url, nodes) as node:
        await node._beat()
        meter = RedisMeter(client)
        await meter.start()
        times: list[float] = []
        cpu = time.process_time()
        for _ in range(count):
            began = time.perf_counter()
            await node._beat()
            times.append((time.perf_counter() - began) * 1e3)
        node_us = (time.process_time() - cpu) / count * 1e6
        redis_us, read, written = (value / count for value in await meter.read())
    beats = nodes * _BEATS_PER_NODE
    kib = (read + written) / 1024
    return median(times), kib, redis_us, node_us, beats * kib, beats * redis_us / 1e6 * 100


async def _expiry(places: Places, sizes: Sizes) -> Table:
    table = Table("Leases that nobody renews any more", ("leases", "s until Redis has dropped them, after their end"))
    lease_seconds = 1.0
    async with places.empty_redis() as client:
        with patch.object(leases, "_TTL", lease_seconds):
            async with announced(places.redis, 0, user_ids(sizes.dead_leases)) as node:
                without = await client.dbsize()
                await node._renew()
        ended = time.monotonic() + lease_seconds
        while True:
            # The count goes down as Redis drops keys, not as they end.
            left = await client.dbsize() - without
            if left <= 0:
                break
            if time.monotonic() > ended + 60:
                raise RuntimeError(f"expected Redis to drop {sizes.dead_leases} leases in a minute, {left} are left")
        table.add(sizes.dead_leases, max(0.0, time.monotonic() - ended))
    return table
