"""The two clients that a run can go by behave alike, whatever the other side does: by websockets, and by picows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support import RunningNode, eventually, text_message, token
from websockets.asyncio.server import ServerConnection, serve

from kama.bench.picows_client import PicowsClient
from kama.bench.plan import Plan
from kama.bench.result import Result
from kama.bench.tally import Reading, Tally
from kama.bench.transport import fastest_client
from kama.client import NodeClient
from kama.errors import CannotConnect, TimedOut, Unauthorised

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
both = pytest.mark.parametrize("client", [NodeClient, PicowsClient])


@contextlib.asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    """The address of a server that does this with every connection, and no more."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def upgrading(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """The address of a WebSocket server."""
    async with serve(handler, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def until_it_leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass
    writer.close()


def test_a_run_goes_by_picows_where_it_is_installed() -> None:
    assert fastest_client() is PicowsClient and PicowsClient.transport == "picows"


@both
async def test_frames_go_out_and_come_in(node: RunningNode, client: type[NodeClient]) -> None:
    async with client(node.url, lambda: token("U1")) as one, one.login("U1", device="test") as connection:
        await connection.send(text_message("U1", "U2", "hello"))
        while (frame := await connection.receive()).get("content") != "hello":
            pass
        assert (frame["send_id"], frame["seq"], connection.closed_with) == ("U1", 1, None)
    await eventually(lambda: not len(node.node.registry))


@both
async def test_a_frame_in_pieces_is_one_frame(client: type[NodeClient]) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send(['{"whole":', "tr", "ue}"], text=True)
        await connection.send('{"next":1}')
        await connection.wait_closed()

    async with upgrading(handler) as url, client(url, str) as one, one.login("U1") as connection:
        assert [await connection.receive(), await connection.receive()] == [{"whole": True}, {"next": 1}]


@both
async def test_the_code_and_the_reason_of_a_close_are_told(node: RunningNode, client: type[NodeClient]) -> None:
    async with client(node.url, lambda: token("U1")) as one, one.login("U1") as connection:
        (conn,) = node.node.registry.get("U1")
        conn.close(4008, "too slow")
        with pytest.raises(CannotConnect, match="ended with 4008"):
            while True:
                await connection.receive()
        assert connection.closed_with == (4008, "too slow")
        with pytest.raises(CannotConnect, match="ended with 4008"):
            await connection.send({})


@both
async def test_what_came_before_the_end_can_still_be_read(client: type[NodeClient]) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send('{"last":1}')
        await connection.close(4001, "bye")

    async with upgrading(handler) as url, client(url, str) as one, one.login("U1") as connection:
        await eventually(lambda: connection.closed_with == (4001, "bye"))
        assert await connection.receive() == {"last": 1}


@both
async def test_a_connection_that_breaks_off_has_ended_with_1006(client: type[NodeClient]) -> None:
    async def handler(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with upgrading(handler) as url, client(url, str) as one, one.login("U1") as connection:
        with pytest.raises(CannotConnect, match="ended with 1006"):
            await connection.receive()


@both
async def test_a_login_that_the_node_refuses_fails_with_its_reason(node: RunningNode, client: type[NodeClient]) -> None:
    async with client(node.url, lambda: token("U1")[:-5] + "AAAAA") as one:
        with pytest.raises(Unauthorised):
            async with one.login("U1"):
                pass


@both
async def test_nobody_there_is_told_with_the_systems_reason(client: type[NodeClient]) -> None:
    async with client("http://127.0.0.1:1", str) as one:
        with pytest.raises(CannotConnect, match="answers at http://127.0.0.1:1: Connect(ion refused| call failed)"):
            async with one.login("U1"):
                pass


@both
async def test_another_kind_of_server_is_told_as_such(client: type[NodeClient]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp.example\r\n\r\n")
        await until_it_leaves(reader, writer)

    async with listening(answer) as url, client(url, str, timeout=5) as one:
        with pytest.raises(CannotConnect, match="does not speak WebSocket"):
            async with one.login("U1"):
                pass


@both
async def test_a_node_that_ends_during_a_login_is_told_as_one_that_cannot_be_reached(client: type[NodeClient]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with listening(answer) as url, client(url, str, timeout=5) as one:
        with pytest.raises(CannotConnect, match=url):
            async with one.login("U1"):
                pass


@both
async def test_a_login_that_nobody_answers_ends_in_time_and_leaves_nothing_open(client: type[NodeClient]) -> None:
    left = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_it_leaves(reader, writer)
        left.set()

    async with listening(answer) as url, client(url, str, timeout=0.2) as one:
        with pytest.raises(TimedOut, match="within 0.2 s"):
            async with one.login("U1"):
                pass
        async with asyncio.timeout(10):
            await left.wait()


@pytest.mark.parametrize(("cpu", "is_limit"), [(0.5, False), (0.95, True)])
def test_a_result_tells_the_clients_share_of_a_core_and_when_that_was_the_limit(cpu: float, is_limit: bool) -> None:
    tally = Tally()
    tally.first, tally.last = Reading(0.0, 0.0, 0, 0, 0, 0), Reading(2.0, 2 * cpu, 10, 10, 10, 0)
    result = Result(Plan(("http://127.0.0.1:1",)), tally)
    told = result.as_dict()
    assert told["cpu"] == cpu and told["conditions"]["transport"] == "picows"
    assert ("own cpu", f"{cpu:.0%} of a core (picows, uvloop)", "") in [row[:3] for row in result.rows()]
    assert any("this client is the limit" in warning for warning in told["warnings"]) == is_limit
