"""NodeClient against a real node, against nothing, and against what is no node."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support import RunningNode, StartNode, text_message, token
from websockets.asyncio.server import ServerConnection, serve

from kama.client import NodeClient, error_of
from kama.errors import (
    BadParameter,
    Busy,
    CannotConnect,
    ExitCode,
    Forbidden,
    KamaError,
    NoSuchGroup,
    RateLimited,
    SettingsError,
    TimedOut,
    Unauthorised,
)

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def client_of(node: RunningNode, user_id: str = "U1", role: str = "user", *, timeout: float = 10.0) -> NodeClient:
    return NodeClient(node.url, lambda: token(user_id, role), timeout=timeout)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def listening(answer: Answer, timeout: float = 10.0) -> AsyncIterator[NodeClient]:
    """A client of a server that does this with every connection, and no more."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with NodeClient(f"http://127.0.0.1:{port}", lambda: "a-token", timeout=timeout) as client:
            yield client
    finally:
        server.close()
        await server.wait_closed()


def says(response: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    return answer


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def log_in(client: NodeClient) -> None:
    async with client.login("U1") as connection:
        await connection.receive()


async def ask(client: NodeClient) -> None:
    await client.get("/admin/groups")


WAYS = pytest.mark.parametrize("way", [ask, log_in])
Way = Callable[[NodeClient], Awaitable[None]]


# --- a node --------------------------------------------------------------------------------------------


async def test_data_of_the_envelope_is_the_answer(node: RunningNode) -> None:
    async with client_of(node, role="admin") as client:
        group = await client.post("/admin/groups", {"group_id": "G1", "owner_id": "U1"})
        assert group["member_count"] == 1
        assert (await client.get("/admin/groups", after=None, limit=5))["groups"][0]["group_id"] == "G1"
        assert await client.delete("/admin/groups/G1") is None


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/admin/groups", Forbidden),
        ("/message/getMessageList?userOneId=x&userTwoId=U1", BadParameter),
        ("/message/getGroupMessageList?groupId=Gnone", NoSuchGroup),
    ],
)
async def test_what_the_node_refuses_comes_as_the_error_that_it_was_there(
    node: RunningNode, path: str, kind: type[KamaError]
) -> None:
    async with client_of(node) as client:
        with pytest.raises(kind):
            await client.get(path)


@WAYS
async def test_a_token_that_is_not_good_is_an_auth_failure(node: RunningNode, way: Way) -> None:
    async with NodeClient(node.url, lambda: "nonsense") as client:
        with pytest.raises(Unauthorised) as refused:
            await way(client)
    assert refused.value.exit_code == ExitCode.AUTH and "nonsense" not in refused.value.message


async def test_the_token_is_asked_for_anew_each_time(node: RunningNode) -> None:
    tokens = iter([token("U1", "admin"), token("U1", "user")])
    async with NodeClient(node.url, lambda: next(tokens)) as client:
        await client.get("/admin/groups")
        with pytest.raises(Forbidden):
            await client.get("/admin/groups")


async def test_frames_go_out_and_come_in(node: RunningNode) -> None:
    async with client_of(node) as client, client.login("U1") as connection:
        assert (await connection.receive())["event"] == "welcome"
        await connection.send({**text_message("U1", "U2", "hello 世界"), "client_msg_id": "c1"})
        types = set()
        while types != {"ack", 0}:
            frame = await connection.receive()
            if frame.get("client_msg_id") == "c1":
                types.add(frame["type"])


async def test_a_post_only_connection_is_sent_nothing_of_others(node: RunningNode) -> None:
    async with client_of(node) as client, client.login("U1", device="d", post_only=True) as connection:
        async with node.login("U2") as other:
            await other.say("U1", "not for this one")
            await other.wait_for_many(1)
        await connection.send({**text_message("U1", "U2"), "client_msg_id": "mine"})
        frames = [await connection.receive() for _ in range(3)]
    assert [frame.get("client_msg_id") for frame in frames if isinstance(frame["type"], int)] == ["mine"]


async def test_a_connection_knows_how_it_ended(node: RunningNode) -> None:
    async with client_of(node) as client, client.login("U1") as connection:
        assert connection.closed_with is None
        async with client_of(node, "Uadmin", "admin") as operator:
            await operator.post("/admin/kick", {"user_id": "U1", "reason": "spam"})
        with pytest.raises(CannotConnect, match=r"the connection ended with 4002 \(spam\)"):
            while True:
                await connection.receive()
        with pytest.raises(CannotConnect, match=r"ended with 4002"):
            await connection.send({"type": "ping"})
        assert connection.closed_with == (4002, "spam")


async def test_a_refused_login_comes_with_its_reason_and_how_long_to_wait(start_node: StartNode) -> None:
    node = await start_node(limits={"connections_per_user": 1})
    async with node.login("U1"), client_of(node) as client:
        with pytest.raises(RateLimited) as refused:
            await log_in(client)
    assert refused.value.retry_after == 5


async def test_text_that_no_frame_can_hold_is_told(node: RunningNode) -> None:
    async with client_of(node) as client, client.login("U1") as connection:
        for posting in (connection.send({"content": "\ud800"}), client.post("/message/send", {"content": "\ud800"})):
            with pytest.raises(BadParameter, match="expected text that can be written in UTF-8"):
                await posting


async def test_probe_needs_no_token(node: RunningNode) -> None:
    async with NodeClient(node.url, lambda: pytest.fail("asked for a token")) as client:
        await client.probe()


# --- nothing -------------------------------------------------------------------------------------------


@WAYS
async def test_where_nothing_listens_it_says_so_in_the_systems_words(way: Way) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else takes it meanwhile
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with NodeClient(url, lambda: "x") as client:
            with pytest.raises(CannotConnect) as refused:
                await way(client)
    assert refused.value.message == f"no kama node answers at {url}: Connection refused"
    assert (refused.value.exit_code, refused.value.hint) == (ExitCode.CANNOT_CONNECT, "start one: kama serve")


@WAYS
async def test_a_name_of_no_host_is_told(way: Way) -> None:
    async with NodeClient("http://no.such.host.invalid", lambda: "x") as client:
        with pytest.raises(CannotConnect, match="no kama node answers at http://no.such.host.invalid: .*(known|resol)"):
            await way(client)


@WAYS
async def test_a_node_that_speaks_no_tls_is_told(node: RunningNode, way: Way) -> None:
    async with NodeClient(f"https://127.0.0.1:{node.port}", lambda: "x", timeout=5) as client:
        with pytest.raises(CannotConnect):
            await way(client)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ws://h", "http://h:99999", "http://u:hunter2@h"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        NodeClient(url, lambda: "x")
    assert refused.value.exit_code == ExitCode.USAGE and "hunter2" not in refused.value.message


# --- what is no node -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        http("200 OK", b"<html>hello</html>"),
        http("404 Not Found", b"not found"),
        http("302 Found", b"", "Location: http://127.0.0.1:1/"),
        http("200 OK", b"[]"),
        http("200 OK", b"{}"),
        http("200 OK", b'{"code":"x","msg":1}'),
        http("200 OK", b"null"),
        http("200 OK", b"\xff\xfe"),
    ],
)
@WAYS
async def test_a_server_that_is_no_node_is_told(way: Way, response: bytes) -> None:
    async with listening(says(response)) as client:
        with pytest.raises(CannotConnect) as refused:
            await way(client)
    assert refused.value.exit_code == ExitCode.CANNOT_CONNECT and "a-token" not in refused.value.message


@pytest.mark.parametrize("response", [b"SSH-2.0-OpenSSH_9.6\r\n", b"\xff" * 100, b"HTTP/1.1 200", b""])
@WAYS
async def test_a_server_that_does_not_speak_http_is_told(way: Way, response: bytes) -> None:
    async with listening(says(response)) as client:
        with pytest.raises(CannotConnect) as refused:
            await way(client)
    assert "a-token" not in refused.value.message


@pytest.mark.parametrize("header", ["Retry-After: 7", "Retry-After: \xb2", "Retry-After: soon", "X: y"])
async def test_how_long_to_wait_is_read_where_it_is_a_number(header: str) -> None:
    body = b'{"code":1009,"msg":"slow down","data":null}'
    async with listening(says(http("429 Too Many Requests", body, header))) as client:
        with pytest.raises(RateLimited, match="slow down") as limited:
            await client.get("/x")
    assert limited.value.retry_after == (7 if header.endswith("7") else 1)


@WAYS
async def test_a_server_that_hangs_times_out(way: Way) -> None:
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with listening(hang, timeout=0.5) as client:
        with pytest.raises(TimedOut, match=r"did not answer .* within 0.5 s") as late:
            await way(client)
        ended.set()
    assert late.value.exit_code == ExitCode.TIMEOUT


@pytest.mark.parametrize("frame", ["no json", "[1]", "5", b"\xff"])
async def test_a_websocket_of_others_is_told(frame: str | bytes) -> None:
    async def others(connection: ServerConnection) -> None:
        await connection.send(frame)
        await connection.wait_closed()

    async with serve(others, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with NodeClient(f"http://127.0.0.1:{port}", lambda: "x") as client:
            with pytest.raises(CannotConnect, match="expected frames that are JSON objects"):
                await log_in(client)


# --- error frames --------------------------------------------------------------------------------------


def test_an_error_frame_is_the_error_that_it_was_at_the_node() -> None:
    error = error_of({"type": "error", "code": 1001, "message": "no", "field": "content"})
    assert isinstance(error, BadParameter) and (error.message, error.field) == ("no", "content")


def test_a_rate_limit_says_how_long_to_wait() -> None:
    error = error_of({"type": "error", "code": 1009, "message": "slow down", "retry_after_ms": 250})
    assert isinstance(error, RateLimited) and error.retry_after == 0.25


@pytest.mark.parametrize(("code", "kind"), [(1005, Busy), (1006, Unauthorised), (1007, Forbidden), (4711, KamaError)])
def test_every_code_has_its_error(code: int, kind: type[KamaError]) -> None:
    assert type(error_of({"type": "error", "code": code, "message": "no"})) is kind
