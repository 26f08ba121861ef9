"""Which of two thousand connections a watcher sees, and in which order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from conn_builders import build_conn

from kama.errors import BadParameter
from kama.monitor_protocol import CLIENT_ORDERS, Client, ClientQuery
from kama.server.registry import ClientRegistry
from kama.server.watch.client_view import ClientView, build_client
from kama.server.ws_gateway import UserConn

COUNT = 2_000
NOW = time.time()


def scrambled(number: int) -> int:
    """A permutation of the numbers below COUNT."""
    return number * 1237 % COUNT


@pytest.fixture(scope="module")
def registry() -> ClientRegistry:
    made = ClientRegistry(10_000, 10, "allow")
    for number in range(COUNT):
        conn = build_conn(f"U{number:04}", since=NOW - scrambled(number))
        conn.device = f"d{scrambled(number) % 7}"
        conn.last = NOW - scrambled(number)
        conn.queue.high_water = scrambled(number)
        conn.counters.dropped = scrambled(number) % 100
        made.add(conn)
    return made


class Looking:
    def __init__(self, registry: ClientRegistry, **query: Any) -> None:
        self.now = 0.0
        self.view = ClientView(registry, "n1", ClientQuery(**query), lambda: self.now)

    async def rows(self) -> list[Client]:
        return await self.view.rows()


_ORDERS: dict[str, Callable[[Client], Any]] = {
    "queue": lambda client: client.depth,
    "high": lambda client: client.high,
    "in": lambda client: client.in_rate,
    "out": lambda client: client.out_rate,
    "dropped": lambda client: client.dropped,
    "idle": lambda client: NOW - client.last_ms / 1000,
    "since": lambda client: NOW - client.since_ms / 1000,
    "user": lambda client: client.user_id,
    "device": lambda client: client.device,
}


def test_all_orders_are_tested() -> None:
    assert set(_ORDERS) == set(CLIENT_ORDERS)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("order", CLIENT_ORDERS)
async def test_the_first_of_an_order_are_those_of_all(registry: ClientRegistry, order: str, descending: bool) -> None:
    shown = await Looking(registry, sort=order, descending=descending, limit=30).rows()
    everybody = [build_client(conn, "n1") for conn in registry]
    key = _ORDERS[order]
    assert [key(client) for client in shown] == sorted(map(key, everybody), reverse=descending)[:30]
    assert len({client.id for client in shown}) == 30


async def test_the_most_is_found_wherever_it_is(registry: ClientRegistry) -> None:
    looking = Looking(registry, sort="high", limit=3)
    assert [client.high for client in await looking.rows()] == [1999, 1998, 1997]
    assert looking.view.matched == COUNT


async def test_an_offset_leaves_out_the_first(registry: ClientRegistry) -> None:
    shown = await Looking(registry, sort="high", limit=3, offset=10).rows()
    assert [client.high for client in shown] == [1989, 1988, 1987]
    assert await Looking(registry, limit=3, offset=1_000_000).rows() == []


async def test_a_filter_picks_before_the_limit(registry: ClientRegistry) -> None:
    looking = Looking(registry, sort="user", descending=False, limit=5, filter="high<20 dropped>=10")
    shown = await looking.rows()
    assert looking.view.matched == 10
    assert len(shown) == 5
    assert {client.high for client in shown} <= set(range(10, 20))


async def test_no_rows_may_be_asked_for(registry: ClientRegistry) -> None:
    looking = Looking(registry, limit=0)
    assert (await looking.rows(), looking.view.matched) == ([], COUNT)


def test_a_wrong_filter_is_refused(registry: ClientRegistry) -> None:
    with pytest.raises(BadParameter, match="expected a number behind queue, got 'full'"):
        Looking(registry, filter="queue>full")


# --- as time goes by


def small(*conns: UserConn) -> ClientRegistry:
    made = ClientRegistry(100, 10, "allow")
    for conn in conns:
        made.add(conn)
    return made


async def test_rates_are_those_since_the_walk_before() -> None:
    conn = build_conn("U1")
    looking = Looking(small(conn))
    assert [(client.in_rate, client.out_rate) for client in await looking.rows()] == [(0, 0)]
    conn.counters.received += 10
    conn.counters.written += 30
    looking.now += 2
    assert [(client.in_rate, client.out_rate) for client in await looking.rows()] == [(5, 15)]


async def test_rows_are_picked_once_a_second_and_show_what_is_now() -> None:
    old, new = build_conn("U1"), build_conn("U2")
    registry = small(old)
    looking = Looking(registry)
    await looking.rows()
    registry.add(new)
    old.counters.received = 7
    looking.now += 0.5
    assert [(client.user_id, client.received) for client in await looking.rows()] == [("U1", 7)]
    looking.now += 0.5
    assert {client.user_id for client in await looking.rows()} == {"U1", "U2"}


async def test_who_has_left_is_no_row_any_more() -> None:
    conn = build_conn("U1")
    looking = Looking(small(conn))
    await looking.rows()
    conn.close(4002, "kicked")
    assert await looking.rows() == []


async def test_who_never_sent_a_frame_is_idle_since_it_came() -> None:
    conn = build_conn("U1", since=time.time() - 90)
    shown = await Looking(small(conn), filter="idle>80s idle<10m").rows()
    assert [client.user_id for client in shown] == ["U1"]


async def test_a_walk_lets_others_have_their_turn(registry: ClientRegistry) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        await Looking(registry).rows()
        counting.cancel()
    assert turns >= COUNT / 500
