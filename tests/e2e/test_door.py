"""The first bytes of a connection, in whatever pieces and words they come."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest
from raw_websocket import CLOSE, Raw, frame, raw_connection, upgrade
from support import RunningNode, bearer, eventually

from kama.server import guard
from kama.server.transport import door, server_socket

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
SEND = "POST /message/send HTTP/1.1\r\nHost: x\r\nAuthorization: {Authorization}\r\nContent-Length: 100\r\n\r\n"


def login() -> bytes:
    return upgrade("/wss?client_id=U1", f"Authorization: {bearer('U1')['Authorization']}")


async def logged_in(raw: Raw) -> None:
    assert (await raw.head()).startswith("HTTP/1.1 101 ")
    for event in (b'"welcome"', b'"caught_up"'):
        assert event in (await raw.frame())[1]


async def test_a_login_may_come_in_one_piece(node: RunningNode) -> None:
    async with raw_connection(node.port) as raw:
        await raw.write(login())
        await logged_in(raw)
        (conn,) = node.node.registry.get("U1")
        assert conn.address == "{}:{}".format(*raw.writer.get_extra_info("sockname"))


async def ask_for_health(raw: Raw) -> None:
    await raw.write(HEALTH)
    head = (await raw.head()).lower()
    assert head.startswith("http/1.1 200 ")
    await raw.reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))


@pytest.mark.parametrize("size", [1, 7, -2], ids=["bytes", "some bytes", "all but two bytes"])
async def test_a_login_may_come_in_pieces(node: RunningNode, size: int) -> None:
    async with raw_connection(node.port) as raw:
        request = login()
        step = size % len(request)
        for at in range(0, len(request), step):
            await raw.write(request[at : at + step])
            await asyncio.sleep(0.001)
        await logged_in(raw)


@pytest.mark.parametrize("connection", ["keep-alive,Upgrade", "Upgrade, keep-alive", "close\r\nConnection: UPGRADE"])
async def test_a_login_may_come_in_other_words(node: RunningNode, connection: str) -> None:
    async with raw_connection(node.port) as raw:
        await raw.write(login().replace(b"Connection: Upgrade", f"Connection: {connection}".encode()))
        await logged_in(raw)


@pytest.mark.parametrize("origin", [b"http://127.0.0.1", b"HTTPS://chat.example:443"])
async def test_a_login_may_name_the_whole_url(node: RunningNode, origin: bytes) -> None:
    """RFC 6455, section 4.1: a client may, as through some proxies."""
    async with raw_connection(node.port) as raw:
        await raw.write(login().replace(b"GET ", b"GET " + origin))
        await logged_in(raw)


async def test_a_connection_may_ask_other_things_and_log_in_then(node: RunningNode) -> None:
    async with raw_connection(node.port) as raw:
        for _ in range(2):
            await ask_for_health(raw)
        await raw.write(login())
        await logged_in(raw)


async def test_a_login_behind_a_request_that_is_not_answered_yet_ends_after_the_answer(node: RunningNode) -> None:
    """The answer would come among the frames."""
    history = "GET /message/getMessageList?userOneId=U1&userTwoId=U2 HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n"
    async with raw_connection(node.port) as raw:
        await raw.write(history.format(bearer("U1")["Authorization"]).encode() + login())
        async with asyncio.timeout(10):
            answer = await raw.reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'"data":[]}')
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Content-Length: 3", "400"),
        ("Transfer-Encoding: chunked", "400"),
        ("X: " + "x" * 9000, "431"),
        ("\r\n".join(f"X{number}: x" for number in range(130)), "431"),
    ],
)
async def test_a_handshake_that_is_none_is_answered_and_ended(node: RunningNode, header: str, status: str) -> None:
    """Such a connection used to stay open without an answer for as long as the client liked."""
    async with raw_connection(node.port) as raw:
        await raw.write(login()[:-2] + header.encode() + b"\r\n\r\n")
        async with asyncio.timeout(10):
            answer = (await raw.reader.read()).decode()
        assert answer.startswith(f"HTTP/1.1 {status} ")


async def test_who_says_nothing_holds_up_no_end(node: RunningNode) -> None:
    async with raw_connection(node.port) as silent, raw_connection(node.port) as halfway:
        await halfway.write(login()[:100])
        await eventually(lambda: len(node.server.server_state.connections) == 2)
        node.stop()
        async with asyncio.timeout(5):
            assert await silent.reader.read() == b"" and await halfway.reader.read() == b""


async def test_who_leaves_without_a_word_is_forgotten(node: RunningNode) -> None:
    async with raw_connection(node.port):
        await eventually(lambda: len(node.server.server_state.connections) == 1)
    await eventually(lambda: not node.server.server_state.connections)


async def test_a_login_is_answered_in_one_write(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write

    def note(number: int, data: bytes) -> int:
        written.append(data)
        return write(number, data)

    async with raw_connection(node.port) as raw:
        monkeypatch.setattr(server_socket.os, "write", note)
        await raw.write(login())
        await logged_in(raw)
    answer = next(data for data in written if data.startswith(b"HTTP/1.1 101 "))
    assert b'"welcome"' in answer and b'"caught_up"' in answer


async def test_who_is_closed_in_the_turn_of_the_upgrade_is_told_why(node: RunningNode) -> None:
    async with raw_connection(node.port) as raw:
        await raw.write(upgrade("/wss?client_id=U1"))  # the token is still to come
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
        await raw.write(frame(CLOSE, b"\x03\xe8"))
        assert await raw.close_code() == 1000


@pytest.mark.parametrize(
    "said", [b"", upgrade("/wss?client_id=U1")[:40], b"GET /health/live HTTP/1.1\r\nHost:"], ids=["", "login", "get"]
)
async def test_who_does_not_say_what_it_wants_is_sent_away(
    node: RunningNode, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PATIENCE", 0.1)
    async with raw_connection(node.port) as raw, asyncio.timeout(10):
        await raw.write(said)
        assert await raw.reader.read() == b""


async def test_who_has_said_what_it_wants_stays(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE", 0.1)
    async with raw_connection(node.port) as asking, raw_connection(node.port) as connected:
        await asking.write(HEALTH)
        await connected.write(login())
        assert (await asking.head()).startswith("HTTP/1.1 200 ")
        await logged_in(connected)
        async with raw_connection(node.port) as silent:
            assert await silent.reader.read() == b""  # whose patience began later
        await asking.write(HEALTH)
        assert b"HTTP/1.1 200 " in await asking.reader.readuntil(b"\r\n")
        assert not connected.reader.at_eof()


async def test_who_has_asked_before_is_sent_away_too(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "PATIENCE", 0.1)
    async with raw_connection(node.port) as raw, asyncio.timeout(10):
        await ask_for_health(raw)
        await raw.write(HEALTH[:30])
        assert await raw.reader.read() == b""


async def test_a_request_that_comes_a_byte_at_a_time_has_no_more_time(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "PATIENCE", 0.2)
    async with raw_connection(node.port) as raw, asyncio.timeout(10):
        await raw.write(HEALTH[:-2] + b"X: ")
        with contextlib.suppress(ConnectionError):
            while not raw.reader.at_eof():
                await asyncio.sleep(0.01)
                await raw.write(b"x")


async def test_who_does_not_send_all_that_it_announced_is_told(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_PATIENCE", 0.1)
    async with raw_connection(node.port) as raw, asyncio.timeout(10):
        await raw.write(SEND.format(**bearer("U1")).encode() + b'{"type": 0')
        answer = await raw.reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"expected the whole body within 0.1 s, got 10 bytes" in answer


async def test_who_leaves_in_the_middle_of_a_body_is_no_fault_of_ours(
    node: RunningNode, caplog: pytest.LogCaptureFixture
) -> None:
    handled = node.server.server_state.tasks
    async with raw_connection(node.port) as raw:
        await raw.write(SEND.format(**bearer("U1")).encode() + b'{"type": 0')
        await eventually(lambda: handled)
    await eventually(lambda: not handled)
    assert "Traceback" not in caplog.text
