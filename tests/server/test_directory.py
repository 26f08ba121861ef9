"""RedisDirectory against a real Redis: who is where, who may come in, node numbers, and a Redis that goes away."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from conn_builders import build_conn
from redis.asyncio import Redis
from server_builders import until
from structlog.testing import capture_logs
from test_cache_redis import Server

from kama.errors import CannotConnect, Forbidden, RateLimited, SettingsError
from kama.server import directory_redis, leases, node_table
from kama.server.directory import LocalDirectory
from kama.server.directory_redis import RedisDirectory
from kama.server.kafka.records import NODES
from kama.server.registry import ClientRegistry
from kama.server.ws_gateway import UserConn

pytestmark = pytest.mark.redis


class Node:
    """A directory with a registry of its own, as a node has them."""

    def __init__(self, url: str, name: str, *, per_user: int = 8, multi_login: Any = "allow") -> None:
        self.registry = ClientRegistry(10_000, 100, "allow")
        self.resyncs = 0
        self.swept: list[Collection[str]] = []
        self.renumbered: list[int] = []
        self.resync_gate = asyncio.Event()
        self.resync_gate.set()
        self.directory = RedisDirectory(
            url,
            name,
            self.registry,
            address=f"{name}:8000",
            per_user=per_user,
            multi_login=multi_login,
            resync=self._resync,
            sweep=self._sweep,
            renumber=self.renumbered.append,
        )

    async def _resync(self) -> None:
        self.resyncs += 1
        await self.resync_gate.wait()

    async def _sweep(self, nodes: Collection[str]) -> None:
        self.swept.append(nodes)

    async def login(self, user_id: str, **details: Any) -> UserConn:
        """A connection that is known to all. Raises what the directory says."""
        conn = build_conn(user_id, **details)
        self.registry.add(conn)
        try:
            await self.directory.enter(conn)
        except Exception:
            self.registry.discard(conn)
            raise
        return conn

    def logout(self, conn: UserConn) -> None:
        conn.close(1000)
        self.registry.discard(conn)
        self.directory.leave(conn)

    async def where(self, *users: str) -> dict[str, list[str]]:
        return {user: sorted(nodes) for user, nodes in (await self.directory.nodes_of(users)).items()}


StartNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def url(redis_url: str) -> str:
    """A database of this file alone, empty."""
    mine = redis_url.rsplit("/", 1)[0] + "/9"
    async with Redis.from_url(mine) as client:
        await client.flushdb()
    return mine


@pytest.fixture
async def client(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats that nobody has to wait for."""
    monkeypatch.setattr(directory_redis, "_BEAT", 0.02)


@pytest.fixture
async def start(url: str) -> AsyncIterator[StartNode]:
    async with AsyncExitStack() as stack:

        async def make(name: str, *, at: str = url, wanted_id: int | None = None, **details: Any) -> Node:
            node = Node(at, name, **details)
            stack.push_async_callback(node.directory.close)
            await node.directory.start(wanted_id)
            return node

        yield make


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


# --- who is where


async def test_a_user_is_found_where_its_connections_are(start: StartNode) -> None:
    one, two, three = [await start(name) for name in ("n1", "n2", "n3")]
    await two.login("U1")
    await two.login("U1")
    await three.login("U1")
    await three.login("U2")
    await one.directory._beat()
    assert await one.where("U1", "U2", "U3") == {"U1": ["n2", "n3"], "U2": ["n3"]}


async def test_the_node_that_asks_is_none_of_the_others(start: StartNode) -> None:
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    await one.directory._beat()
    assert await one.where("U1") == {}
    assert await two.where("U1") == {"U1": ["n1"]}
    assert list(one.directory.others) == ["n2"]


async def test_who_has_left_is_nowhere(start: StartNode) -> None:
    one, two = await start("n1"), await start("n2")
    first, second = await one.login("U1"), await one.login("U1")
    one.logout(first)

    async def is_down_to(count: int) -> bool:
        return await two.directory.count("U1") == count

    await until_true(lambda: is_down_to(1))
    one.logout(second)
    await until_true(lambda: is_down_to(0))
    assert await two.where("U1") == {}


async def test_a_lease_that_was_not_renewed_is_over(start: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_TTL", 0.05)
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    await until_true(lambda: _is_empty(two, "U1"))
    await one.directory._renew()
    assert await two.where("U1") == {"U1": ["n1"]}


async def _is_empty(node: Node, user: str) -> bool:
    return await node.where(user) == {}


@pytest.mark.usefixtures("quick")
async def test_the_heartbeat_renews_leases(start: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_TTL", 0.5)
    monkeypatch.setattr(directory_redis, "_RENEW", 0.05)
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    entered = time.monotonic()
    while time.monotonic() - entered < 1:
        assert await two.where("U1") == {"U1": ["n1"]}
        await asyncio.sleep(0.02)


async def test_leases_of_a_node_that_is_gone_are_nobodys(start: StartNode, client: Redis) -> None:
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    await client.delete("kama:node:n1")
    await two.directory._beat()
    assert (await two.where("U1"), list(two.directory.others)) == ({}, [])


async def test_leases_of_a_nodes_earlier_life_are_nobodys(start: StartNode) -> None:
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    await one.login("U2")
    reborn = await start("n1")
    await reborn.login("U2")
    await two.directory._beat()
    assert await two.where("U1", "U2") == {"U2": ["n1"]}


async def test_a_node_that_was_closed_is_told_to_the_others(start: StartNode) -> None:
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    await two.directory._beat()
    await one.directory.close()
    await one.directory.close()
    await two.directory._beat()
    assert ([info.name for info in two.directory.nodes], await two.where("U1")) == (["n2"], {})


async def test_nodes_are_told_with_what_they_announce(start: StartNode) -> None:
    one, two = await start("n1", wanted_id=7), await start("n2")
    await one.login("U1")
    await one.directory._beat()
    await two.directory._beat()
    info = two.directory.nodes[0]
    assert (info.name, info.id, info.address, info.connections) == ("n1", 7, "n1:8000", 1)


async def test_connections_elsewhere_are_counted(start: StartNode) -> None:
    one, two = await start("n1"), await start("n2")
    mine, also_mine, _theirs = await one.login("U1"), await one.login("U1"), await two.login("U1")
    assert await two.directory.count("U1") == 2
    assert await two.directory.count("U1", [mine.id, also_mine.id, "x"]) == 2
    assert await two.directory.count("U1", [mine.id]) == 1
    assert await two.directory.count("U1", []) == await two.directory.count("U2") == 0


async def test_many_leave_at_once(start: StartNode) -> None:
    one, two = await start("n1"), await start("n2")
    with capture_logs() as logs:
        conns = await asyncio.gather(*(one.login(f"U{number}") for number in range(300)))
        assert len(await two.where(*(f"U{number}" for number in range(300)))) == 300
        for conn in conns:
            one.logout(conn)
        await one.directory.close()
    assert await two.where(*(f"U{number}" for number in range(300))) == {}
    assert logs == [], "nobody took a crowd for a Redis that is away"


async def test_a_name_may_have_any_character(start: StartNode) -> None:
    name = "a|b/ü 1"
    one, two = await start(name), await start("n2")
    await one.login("U1")
    assert await two.where("U1") == {"U1": [name]}


async def test_what_others_wrote_under_our_keys_is_passed_over(start: StartNode, client: Redis) -> None:
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    await client.zadd("kama:where:U1", {"garbage": 4e12, b"\xff|1|2|3|4": 4e12, "a|b|c|d|e": 4e12})
    await client.set("kama:node:n3", b"{}")
    await client.sadd("kama:nodes", "n3")
    await two.directory._beat()
    assert await two.where("U1") == {"U1": ["n1"]}
    assert await two.directory.count("U1") == 1


# --- who may come in


async def test_the_limit_of_connections_counts_all_nodes(start: StartNode) -> None:
    one, two = [await start(name, per_user=2) for name in ("n1", "n2")]
    await one.login("U1")
    await two.login("U1")
    with pytest.raises(RateLimited, match=r"U1 has 2 of 2 connections \(limits\.connections_per_user\)"):
        await one.login("U1")
    await until_true(lambda: _counts(two, "U1", 1))
    await two.login("U2")


async def _counts(node: Node, user: str, count: int) -> bool:
    """Who was refused left nothing behind."""
    return await node.directory.count(user) == count


async def test_reject_refuses_who_is_logged_in_elsewhere(start: StartNode) -> None:
    one, two = [await start(name, multi_login="reject") for name in ("n1", "n2")]
    first = await one.login("U1")
    with pytest.raises(Forbidden, match="logged in already"):
        await two.login("U1")
    await two.login("U1", post_only=True)
    one.logout(first)
    await until_true(lambda: _counts(two, "U1", 0))
    await two.login("U1")


async def test_a_login_can_be_judged_before_it_comes(start: StartNode) -> None:
    one, two = [await start(name, multi_login="reject", per_user=2) for name in ("n1", "n2")]
    await two.directory.check("U1")
    first = await one.login("U1")
    with pytest.raises(Forbidden, match="logged in already"):
        await two.directory.check("U1")
    await two.directory.check("U1", post_only=True)
    await two.login("U1", post_only=True)
    with pytest.raises(RateLimited, match="2 of 2"):
        await two.directory.check("U1", post_only=True)
    assert await two.directory.count("U1") == 1
    one.logout(first)
    await until_true(lambda: _counts(two, "U1", 0))
    await two.directory.check("U1")


async def test_who_comes_back_at_once_is_not_its_own_rival(start: StartNode) -> None:
    """The lease of a connection that has just left may stand in Redis still."""
    one, _two = [await start(name, multi_login="reject", per_user=1) for name in ("n1", "n2")]
    for _ in range(20):
        one.logout(await one.login("U1"))


async def test_who_comes_is_heard_of_at_once(start: StartNode) -> None:
    one, _two = await start("n1"), await start("n2")
    assert list(one.directory.others) == []
    await one.directory.look()
    assert list(one.directory.others) == ["n2"]


async def test_replace_names_the_connections_elsewhere_that_go(start: StartNode) -> None:
    one, two = [await start(name, multi_login="replace", per_user=1) for name in ("n1", "n2")]
    old = await one.login("U1", since=time.time() - 5)
    new = build_conn("U1")
    assert await two.directory.enter(new) == [old.id]


async def test_replace_leaves_connections_that_only_post(start: StartNode) -> None:
    one, two = [await start(name, multi_login="replace") for name in ("n1", "n2")]
    await one.login("U1", post_only=True, since=time.time() - 5)
    assert await two.directory.enter(build_conn("U1")) == []
    assert await two.directory.enter(build_conn("U1", post_only=True)) == []


async def test_of_two_logins_at_once_the_later_one_stays(start: StartNode) -> None:
    one, two = [await start(name, multi_login="replace") for name in ("n1", "n2")]
    now = time.time()
    for _ in range(10):
        earlier, later = build_conn("U1", since=now), build_conn("U1", since=now + 1)
        of_earlier, of_later = await asyncio.gather(one.directory.enter(earlier), two.directory.enter(later))
        assert later.id not in of_earlier
        assert await two.directory.enter(later) == [earlier.id] or earlier.id in of_later
        one.directory.leave(earlier)
        two.directory.leave(later)
        await until_true(lambda: _counts(two, "U1", 0))
        await until_true(lambda: _counts(one, "U1", 0))


# --- numbers


async def test_each_node_gets_a_number_of_its_own(start: StartNode) -> None:
    """Names of the same characters begin to look at the same number."""
    nodes = await asyncio.gather(*(start(name) for name in ("ab", "ba", "n1", "n2")))
    numbers = {node.directory._table.number for node in nodes}
    assert len(numbers) == 4
    assert all(0 <= number < NODES for number in numbers)


async def test_a_node_that_was_killed_gets_its_number_again(start: StartNode) -> None:
    await start("ab")
    killed = await start("ba")
    reborn = await start("ba")
    assert reborn.directory._table.number == killed.directory._table.number


async def test_a_number_is_free_again_after_a_clean_end(start: StartNode) -> None:
    first = await start("ab")
    await first.directory.close()
    assert (await start("ba")).directory._table.number == first.directory._table.number


async def test_a_wanted_number_is_taken_as_it_is(start: StartNode) -> None:
    assert (await start("n1", wanted_id=300)).directory._table.number == 300


async def test_a_wanted_number_of_a_node_that_is_there_is_refused(start: StartNode, client: Redis) -> None:
    await start("n1", wanted_id=7)
    with pytest.raises(SettingsError, match="got 7: it is n1's") as refused:
        await start("n2", wanted_id=7)
    assert refused.value.field == "node.id"
    await client.delete("kama:node:n1")
    assert (await start("n2", wanted_id=7)).directory._table.number == 7


@pytest.mark.usefixtures("quick")
async def test_a_node_whose_number_was_taken_meanwhile_takes_another(start: StartNode, client: Redis) -> None:
    """As after hours without Redis: two nodes that make ids with one number would lose messages."""
    node = await start("n1")
    number = node.directory._table.number
    with capture_logs() as logs:
        await client.set(f"kama:node_id:{number}", "somebody")
        await until(lambda: bool(node.renumbered))
    assert node.renumbered == [node.directory._table.number] != [number]
    assert await client.get(f"kama:node_id:{number}") == b"somebody"
    assert [entry["log_level"] for entry in logs] == ["error"]


@pytest.mark.usefixtures("quick")
async def test_two_nodes_of_one_name_are_told(start: StartNode) -> None:
    with capture_logs() as logs:
        await start("n1")
        await start("n1")
        await until(lambda: any("node.name" in entry["event"] for entry in logs))


async def test_numbers_of_nodes_that_are_gone_are_used_again(
    start: StartNode, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_table, "NODES", 2)
    gone, _ = await start("n1"), await start("n2")
    await client.delete("kama:node:n1")
    assert (await start("n3")).directory._table.number == gone.directory._table.number


async def test_without_a_free_number_the_node_does_not_start(start: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_table, "NODES", 2)
    await start("n1")
    await start("n2")
    with pytest.raises(CannotConnect, match="2 node numbers are taken"):
        await start("n3")


async def test_a_node_alone_has_a_number_and_nobody_to_ask() -> None:
    directory = LocalDirectory()
    assert [await directory.start(None), await directory.start(5)] == [1, 5]
    assert (await directory.nodes_of(["U1"]), await directory.count("U1"), list(directory.others)) == ({}, 0, [])
    await directory.look()
    await directory.check("U1")
    assert list(await directory.enter(build_conn("U1"))) == []
    directory.leave(build_conn("U1"))
    await directory.close()


# --- away and back


@pytest.fixture
def server(tmp_path: Path, redis_url: str) -> Iterator[Server]:
    """A Redis that may be killed; only where the other tests have theirs."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on the PATH")
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


async def start_at(server: Server, start: StartNode, name: str, **details: Any) -> Node:
    async with asyncio.timeout(10):
        while True:
            try:
                return await start(name, at=server.url, **details)
            except CannotConnect:
                await asyncio.sleep(0.02)


async def test_without_redis_a_node_does_not_start(start: StartNode) -> None:
    with pytest.raises(CannotConnect, match=r"redis\.url"):
        await start("n1", at="redis://127.0.0.1:1/0")


@pytest.mark.usefixtures("quick")
async def test_while_redis_is_away_everybody_may_be_everywhere(server: Server, start: StartNode) -> None:
    one, _two, _three = [await start_at(server, start, name, multi_login="reject") for name in ("n1", "n2", "n3")]
    await until(lambda: len(one.directory.others) == 2)
    server.kill()
    with capture_logs() as logs:
        assert await one.where("U1", "U2") == {"U1": ["n2", "n3"], "U2": ["n2", "n3"]}
        one.logout(await one.login("U1"))
        await one.login("U1")
        assert await one.directory.count("U1") == 0
        await until(lambda: len(logs) >= 3)  # each of the three nodes has noticed
    assert [entry["log_level"] for entry in logs] == ["warning"] * 3


@pytest.mark.usefixtures("quick")
async def test_a_redis_that_comes_back_empty_is_told_everything_again(server: Server, start: StartNode) -> None:
    one, two = [await start_at(server, start, name) for name in ("n1", "n2")]
    await one.login("U1")
    server.kill()
    await until(lambda: one.directory._away and two.directory._away)
    resyncs = one.resyncs
    server.start()
    await until(lambda: one.resyncs > resyncs)
    await until_true(lambda: _is_at(two, "U1", "n1"))
    assert one.directory.nodes


async def _is_at(node: Node, user: str, name: str) -> bool:
    return not node.directory._away and await node.where(user) == {user: [name]}


@pytest.mark.usefixtures("quick")
async def test_a_redis_that_was_emptied_is_told_everything_again(start: StartNode, client: Redis) -> None:
    one, two = await start("n1"), await start("n2")
    await one.login("U1")
    await until(lambda: len(two.directory.others) == 1)
    resyncs = one.resyncs
    await client.flushdb()
    await until(lambda: one.resyncs > resyncs)
    await until_true(lambda: _is_at(two, "U1", "n1"))


@pytest.mark.usefixtures("quick")
async def test_connections_that_look_for_long_do_not_stop_the_heart(start: StartNode, client: Redis) -> None:
    one = await start("n1")
    one.resync_gate.clear()
    await client.flushdb()
    await until(lambda: one.resyncs > 0)
    await client.flushdb()

    async def is_announced() -> bool:
        return bool(await client.exists("kama:node:n1"))

    await until_true(is_announced)
    one.resync_gate.set()


async def test_who_left_while_leases_were_renewed_stays_away(start: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its removal may overtake the renewal that is on the way."""
    one, two = await start("n1"), await start("n2")
    conn = await one.login("U1")
    write = one.directory._leases._write

    def write_after_it_was_removed(pipe: Any, renewed: UserConn) -> None:
        write(pipe, renewed)
        conn.close(1000)

    monkeypatch.setattr(one.directory._leases, "_write", write_after_it_was_removed)
    await one.directory._renew()
    await until_true(lambda: _counts(two, "U1", 0))


@pytest.mark.usefixtures("quick")
async def test_now_and_then_somebody_sweeps(start: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_redis, "_SWEEP", 0.05)
    one, _two = await start("n1"), await start("n2")
    await until(lambda: any(sorted(nodes) == ["n1", "n2"] for nodes in one.swept))
