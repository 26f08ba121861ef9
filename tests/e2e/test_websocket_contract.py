"""What a Socket promises, over each transport and each event loop, against real uvicorn and bytes of our own making."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from raw_websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    GONE,
    PING,
    PONG,
    TEXT,
    Raw,
    frame,
    raw_connection,
    raw_websocket,
    upgrade,
)
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from support import eventually, make_settings

from kama.server.node_server import websocket_class
from kama.server.transport import server_socket as transport
from kama.server.transport.door import Door
from kama.server.transport.server_socket import READ_AHEAD
from kama.server.transport.socket_reader import SocketReader
from kama.server.websocket import Socket, socket_of

MAX = 65_536
LARGE = b"x" * 32_000


@pytest.fixture(scope="module", params=[pytest.param("asyncio", marks=pytest.mark.drill), "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Accepted:
    """A Socket and one who reads it."""

    def __init__(self, socket: Socket) -> None:
        self.socket: Any = socket
        self.reader = SocketReader(socket)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader if name in ("receive_frame", "drain") else self.socket, name)


class Server:
    """uvicorn around a handler that accepts, and leaves the Socket to the test."""

    def __init__(self, config: uvicorn.Config, port: int) -> None:
        self.uvicorn = uvicorn.Server(config)
        self.port = port
        self.asked = asyncio.Event()
        self.accept = asyncio.Event()
        self.accept.set()
        self.sockets: asyncio.Queue[Accepted] = asyncio.Queue()

    async def handle(self, websocket: WebSocket) -> None:
        self.asked.set()
        await self.accept.wait()
        await websocket.accept(websocket.query_params.get("subprotocol"))
        accepted = Accepted(socket_of(websocket))
        accepted.hand_over(lambda: self._until_ended(accepted))

    async def _until_ended(self, accepted: Accepted) -> None:
        self.sockets.put_nowait(accepted)
        while accepted.ended is None:
            await asyncio.sleep(0.01)

    async def refuse(self, websocket: WebSocket) -> None:
        await websocket.send_denial_response(PlainTextResponse("not today", 403, {"X-Why": "rain"}))

    @asynccontextmanager
    async def pair(self, *, small: bool = False) -> AsyncIterator[tuple[Raw, Accepted]]:
        """Both ends of a new connection."""
        async with raw_websocket(self.port, "/", small=small) as raw:
            yield raw, await self.sockets.get()


StartServer = Callable[..., Awaitable[Server]]


@pytest.fixture(params=["picows", "websockets"])
async def start(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StartServer]:
    if request.param == "picows":
        pytest.importorskip("picows")
    settings = make_settings(tmp_path, server={"websocket": request.param}, limits={"message_size": MAX})
    async with AsyncExitStack() as stack:

        async def start(ping_interval: float = 100, ping_timeout: float = 100) -> Server:
            return await stack.enter_async_context(_running(websocket_class(settings), ping_interval, ping_timeout))

        yield start


@asynccontextmanager
async def _running(
    protocol: type[asyncio.Protocol], ping_interval: float, ping_timeout: float
) -> AsyncIterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = Starlette()
        config = uvicorn.Config(
            app,
            http=Door,
            ws=protocol,
            ws_max_size=MAX,
            ws_ping_interval=ping_interval,
            ws_ping_timeout=ping_timeout,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=5,
        )
        server = Server(config, listener.getsockname()[1])
        app.router.routes += [WebSocketRoute("/", server.handle), WebSocketRoute("/refused", server.refuse)]
        task = asyncio.get_running_loop().create_task(server.uvicorn._serve([listener]))
        try:
            await eventually(lambda: server.uvicorn.started)
            yield server
        finally:
            server.uvicorn.should_exit = True
            await asyncio.wait_for(task, 30)


@pytest.fixture
async def server(start: StartServer) -> Server:
    return await start()


async def received(accepted: Accepted, count: int) -> list[bytes | None]:
    async with asyncio.timeout(10):
        return [await accepted.receive_frame() for _ in range(count)]


def unread(accepted: Accepted) -> int:
    return len(accepted._inbox or ())


# --- the upgrade ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade"])
async def test_the_upgrade_is_found_among_connection_options(server: Server, connection: str) -> None:
    """Firefox sends keep-alive with it."""
    async with raw_connection(server.port) as raw:
        await raw.write(upgrade("/", connection=connection))
        assert (await raw.head()).startswith("HTTP/1.1 101 ")
        await raw.write(frame(TEXT, b"hello"))
        assert await received(await server.sockets.get(), 1) == [b"hello"]


async def test_the_key_and_the_subprotocol_are_answered(server: Server) -> None:
    async with raw_connection(server.port) as raw:
        await raw.write(upgrade("/?subprotocol=bearer", "Sec-WebSocket-Protocol: bearer, x"))
        head = await raw.head()
        key = base64.b64encode(hashlib.sha1(b"AAAAAAAAAAAAAAAAAAAAAA==258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert f"\r\nsec-websocket-accept: {key.decode()}\r\n".lower() in head.lower()
        assert "\r\nsec-websocket-protocol: bearer\r\n" in head.lower()


async def test_a_refusal_has_its_status_headers_and_body(server: Server) -> None:
    async with raw_connection(server.port) as raw:
        await raw.write(upgrade("/refused"))
        answer = (await raw.reader.read()).decode()
        assert answer.startswith("HTTP/1.1 403 ")
        assert "x-why: rain" in answer.lower()
        assert answer.endswith("\r\n\r\nnot today")


async def test_an_upgrade_without_a_key_is_a_bad_request(server: Server) -> None:
    async with raw_connection(server.port) as raw:
        await raw.write(upgrade("/").replace(b"Sec-WebSocket-Key", b"X-Key"))
        assert (await raw.head()).startswith("HTTP/1.1 400 ")


async def test_what_comes_before_the_upgrade_is_answered_is_not_lost(server: Server) -> None:
    server.accept.clear()
    async with raw_connection(server.port) as raw:
        await raw.write(upgrade("/"))
        await server.asked.wait()
        await raw.write(frame(TEXT, b"early") + frame(TEXT, b"half")[:5])
        await asyncio.sleep(0.05)  # until it is there; if it is late, this test is easier
        server.accept.set()
        await raw.head()
        accepted = await server.sockets.get()
        await raw.write(frame(TEXT, b"half")[5:])
        assert await received(accepted, 2) == [b"early", b"half"]


# --- reading -------------------------------------------------------------------------------------------


async def test_text_and_binary_frames_are_bytes(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(TEXT, "für".encode(), mask=b"abcd") + frame(BINARY, b"\xff\0", mask=b"\1\2\3\4"))
        assert await received(accepted, 2) == ["für".encode(), b"\xff\0"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 2000, 65_535, MAX])
async def test_a_frame_of_any_size_up_to_the_limit_is_whole(server: Server, size: int) -> None:
    data = os.urandom(size)
    async with server.pair() as (raw, accepted):
        await raw.write(frame(BINARY, data, mask=b"wxyz"))
        assert await received(accepted, 1) == [data]


async def test_fragments_are_one_message_and_control_frames_may_come_between(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(TEXT, b"f\xc3", fin=False) + frame(PING, b"a") + frame(CONTINUATION, b"\xbc", fin=False))
        assert await raw.frame() == (PONG, b"a"), "answered while the message is not whole yet"
        await raw.write(frame(PONG, b"") + frame(CONTINUATION, b"r") + frame(TEXT, b"next"))
        assert await received(accepted, 2) == ["für".encode(), b"next"]


async def test_many_frames_in_one_segment_keep_their_order(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        frames = [b"%d" % number for number in range(500)]
        await raw.write(b"".join(frame(TEXT, data, mask=b"mask") for data in frames))
        assert await received(accepted, 500) == frames


async def test_one_frame_in_many_segments_is_whole(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        raw.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at, byte in enumerate(data := frame(TEXT, b"y" * 200, mask=b"abcd") + frame(TEXT, b"z")):
            await raw.write(bytes([byte]))
            if at % 10 == 0:
                await asyncio.sleep(0.001)
        assert len(data) > 200
        assert await received(accepted, 2) == [b"y" * 200, b"z"]


async def test_large_and_small_frames_of_many_connections_do_not_mix(server: Server) -> None:
    async with AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(server.pair()) for _ in range(20)]
        payloads = [bytes([65 + number]) * (3000 * number) for number in range(20)]
        whole = [frame(TEXT, data[:10]) + frame(TEXT, data, mask=b"mask") for data in payloads]
        for at in range(0, max(map(len, whole)), 7001):
            for (raw, _), data in zip(pairs, whole, strict=True):
                await raw.write(data[at : at + 7001])
        for (_, accepted), data in zip(pairs, payloads, strict=True):
            assert await received(accepted, 2) == [data[:10], data]


async def test_reading_pauses_while_nobody_takes_the_frames_and_loses_none(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        frames = [b"%06d" % number + LARGE for number in range(200)]
        sending = asyncio.get_running_loop().create_task(raw.write(b"".join(frame(TEXT, data) for data in frames)))
        await eventually(lambda: unread(accepted) >= READ_AHEAD)
        await asyncio.sleep(0.2)  # as long as it likes to read more
        assert unread(accepted) <= READ_AHEAD + 9, "one read of 256 KiB may go past it"
        assert await received(accepted, 200) == frames
        await sending


async def test_a_ping_is_answered_while_frames_wait_for_a_reader(server: Server) -> None:
    async with server.pair() as (raw, _accepted):
        await raw.write(frame(TEXT, b"x") * (READ_AHEAD - 1) + frame(PING, b"still there?"))
        assert await raw.frame() == (PONG, b"still there?")


async def test_a_reader_that_was_cancelled_misses_nothing(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await accepted.receive_frame()
        await raw.write(frame(TEXT, b"here"))
        assert await received(accepted, 1) == [b"here"]


# --- what is refused -----------------------------------------------------------------------------------


BROKEN = {
    "an unmasked frame": (1002, b"\x81\x02{}"),
    "a reserved data opcode": (1002, frame(3, b"x")),
    "a reserved control opcode": (1002, frame(11, b"x")),
    "reserved bit 1": (1002, b"\xc1\x80\0\0\0\0"),
    "reserved bit 2": (1002, b"\xa1\x80\0\0\0\0"),
    "reserved bit 3": (1002, b"\x91\x80\0\0\0\0"),
    "a reserved bit of a ping": (1002, b"\xc9\x80\0\0\0\0"),
    "a reserved bit of a continuation": (1002, frame(TEXT, b"", fin=False) + b"\xc0\x80\0\0\0\0"),
    "a continuation of nothing": (1002, frame(CONTINUATION, b"x")),
    "a continuation after the end": (1002, frame(TEXT, b"x") + frame(CONTINUATION, b"x")),
    "a new message inside a fragmented one": (1002, frame(TEXT, b"x", fin=False) + frame(TEXT, b"x")),
    "a fragmented ping": (1002, frame(PING, b"x", fin=False)),
    "a fragmented close": (1002, frame(CLOSE, b"\x03\xe8", fin=False)),
    "a ping that is too long": (1002, frame(PING, bytes(126))),
    "a close frame of one byte": (1002, frame(CLOSE, b"x")),
    "a close reason that is not UTF-8": (1007, frame(CLOSE, b"\x03\xe8\xff")),
    "text that is not UTF-8": (1007, frame(TEXT, b"a\xff")),
    "fragments that are not UTF-8": (1007, frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"x")),
    "half a character at the end": (1007, frame(TEXT, b"\xe2\x82")),
    "a surrogate": (1007, frame(TEXT, b"\xed\xa0\x80")),
    "too large a frame, its header alone": (1009, b"\x82\xff" + (MAX + 1).to_bytes(8, "big") + bytes(4)),
    "too large a frame, of almost any size": (1009, b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big") + bytes(4)),
    "too large a message": (1009, frame(TEXT, bytes(MAX), fin=False) + frame(CONTINUATION, b"x")),
    **{
        f"the close code {code}": (1002, frame(CLOSE, code.to_bytes(2, "big")))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_frame_is_refused_with_its_code(
    server: Server, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, data = BROKEN[name]
    async with server.pair() as (raw, accepted):
        await raw.write(data)
        assert await raw.close_code() == code
        assert accepted.ended is not None and accepted.ended[0] == code
        while await accepted.receive_frame() is not None:
            pass
        assert accepted.write_frames([b"x"]) is None
    await eventually(lambda: not server.uvicorn.server_state.connections)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR", "CRITICAL")]


async def test_what_came_before_the_broken_frame_is_received(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(TEXT, b"one") + frame(TEXT, b"two") + frame(3, b""))
        assert [*await received(accepted, 3)] == [b"one", b"two", None]


async def test_who_goes_on_sending_after_a_broken_frame_learns_why(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(3, b""))
        for _ in range(100):
            await raw.write(frame(TEXT, LARGE))
        assert await raw.close_code() == 1002
        assert unread(accepted) == 0


async def test_after_a_refusal_the_connection_ends_once_nothing_comes_any_more(server: Server) -> None:
    async with server.pair() as (raw, _accepted):
        await raw.write(frame(3, b""))
        await raw.close_code()
        async with asyncio.timeout(transport.LINGER / 2):
            assert await raw.frame() == GONE


async def test_fragments_without_content_cost_nothing(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(TEXT, b"a", fin=False))
        for _ in range(20):
            await raw.write(frame(CONTINUATION, b"", fin=False) * 1000)
        assert len(accepted._message or b"") <= 1
        await raw.write(frame(CONTINUATION, b"b"))
        assert await received(accepted, 1) == [b"ab"]


# --- writing -------------------------------------------------------------------------------------------


async def test_frames_of_every_size_arrive_as_they_are_in_one_call(server: Server) -> None:
    frames = [b"x" * size for size in (0, 1, 125, 126, 127, 65_535, 65_536, 70_000)]
    async with server.pair() as (raw, accepted):
        assert accepted.write_frames(frames) is not None
        assert [await raw.frame() for _ in frames] == [(TEXT, data) for data in frames]


async def test_what_is_out_is_not_unsent(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        assert accepted.unsent == 0
        accepted.write_frames([b"hello"])
        await eventually(lambda: accepted.unsent == 0)
        assert await raw.frame() == (TEXT, b"hello")


async def test_who_does_not_read_is_seen_and_what_waits_for_it_arrives_in_order(server: Server) -> None:
    async with server.pair(small=True) as (raw, accepted):
        written = 0
        while accepted.can_write:
            accepted.write_frames([b"%08d" % (written + number) + LARGE for number in range(3)])
            written += 3
            await asyncio.sleep(0)
            assert written < 3000, "the system takes it all"
        assert accepted.unsent
        draining = asyncio.get_running_loop().create_task(accepted.drain())
        await asyncio.sleep(0.05)
        assert not draining.done()
        for number in range(written):
            assert await raw.frame() == (TEXT, b"%08d" % number + LARGE)
        await draining
        assert accepted.can_write
        await eventually(lambda: accepted.unsent == 0)


async def test_what_is_written_does_not_overtake_what_waits(server: Server) -> None:
    async with server.pair(small=True) as (raw, accepted):
        written = 0
        while accepted.can_write:
            accepted.write_frames([b"%08d" % written + LARGE])
            written += 1
            await asyncio.sleep(0)
        for number in range(written):
            assert await raw.frame() == (TEXT, b"%08d" % number + LARGE)
            accepted.write_frames([b"%08d" % (written + number)])
        for number in range(written):
            assert await raw.frame() == (TEXT, b"%08d" % (written + number))


async def test_the_answers_to_pings_of_who_does_not_read_do_not_pile_up(server: Server) -> None:
    async with server.pair(small=True) as (raw, accepted):
        while accepted.can_write:
            accepted.write_frames([LARGE])
            await asyncio.sleep(0)
        before = accepted.unsent
        for _ in range(50):
            await raw.write(frame(PING, bytes(125)) * 1000)
        await raw.write(frame(TEXT, b"read"))
        assert await received(accepted, 1) == [b"read"]
        assert before is not None and (accepted.unsent or 0) <= before


# --- ending --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4010, 4999])
async def test_the_peers_close_is_answered_and_known(server: Server, code: int) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(TEXT, b"last") + frame(CLOSE, code.to_bytes(2, "big") + "tschüß".encode()))
        assert await raw.close_code() == code
        assert await raw.frame() == GONE
        assert accepted.ended == (code, "tschüß")
        assert await received(accepted, 2) == [b"last", None]
        assert accepted.unsent is None


async def test_a_close_without_a_code_is_1005(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(CLOSE, b""))
        assert await raw.frame() == (CLOSE, b"")
        assert accepted.ended == (1005, "")


async def test_our_close_arrives_after_what_was_written_and_ends_with_the_peers_answer(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        accepted.write_frames([b"last"])
        accepted.close_now(4008, "slow")
        accepted.close_now(4009, "never said")
        assert accepted.write_frames([b"too late"]) is None
        assert accepted.ended == (4008, "slow")
        assert await received(accepted, 1) == [None]
        assert [await raw.frame() for _ in range(2)] == [(TEXT, b"last"), (CLOSE, b"\x0f\xa8slow")]
        await raw.write(frame(CLOSE, b"\x0f\xa8"))
        async with asyncio.timeout(transport.LINGER / 2):
            assert await raw.frame() == GONE


async def test_what_comes_after_our_close_is_dropped(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        accepted.close_now(1000)
        await raw.write(frame(TEXT, b"late") * 100 + frame(PING, b""))
        assert await raw.frame() == (CLOSE, b"\x03\xe8")
        await raw.write(frame(CLOSE, b"\x03\xe8"))
        assert await raw.frame() == GONE
        assert await received(accepted, 1) == [None]


async def test_what_is_no_frame_after_our_close_gets_no_second_one(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        accepted.close_now(4000)
        await raw.write(frame(3, b"") + frame(3, b""))
        assert [await raw.frame() for _ in range(2)] == [(CLOSE, b"\x0f\xa0"), GONE]
        assert accepted.ended == (4000, "")


async def test_what_comes_behind_the_peers_close_is_dropped(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(CLOSE, b"\x03\xe8") * 2 + frame(TEXT, b"late") + frame(3, b""))
        assert [await raw.frame() for _ in range(2)] == [(CLOSE, b"\x03\xe8"), GONE]
        assert await received(accepted, 1) == [None]


async def test_a_long_reason_is_cut_between_characters(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        accepted.close_now(4000, "x" + "ü" * 100)
        assert await raw.frame() == (CLOSE, b"\x0f\xa0x" + "ü".encode() * 61)


async def test_who_neither_answers_nor_reads_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LINGER", 0.3)
    async with server.pair(small=True) as (_raw, accepted):
        while accepted.can_write:
            accepted.write_frames([LARGE])
            await asyncio.sleep(0)
        accepted.close_now(4008, "slow")
        await eventually(lambda: not server.uvicorn.server_state.connections)
        assert accepted.ended == (4008, "slow")
        assert accepted.unsent is None


async def test_who_closes_and_does_not_read_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LINGER", 0.3)
    async with server.pair(small=True) as (raw, accepted):
        while accepted.can_write:
            accepted.write_frames([LARGE])
            await asyncio.sleep(0)
        await raw.write(frame(CLOSE, b"\x03\xe8"))
        await eventually(lambda: not server.uvicorn.server_state.connections)
        assert accepted.ended == (1000, "")


async def test_a_peer_that_resets_the_connection_is_lost(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        raw.reset()
        assert await received(accepted, 1) == [None]
        assert accepted.ended is not None and accepted.ended[0] == 1006
        assert (accepted.unsent, accepted.write_frames([b"x"])) == (None, None)
        await accepted.drain()


async def test_a_peer_that_is_gone_in_the_middle_of_a_frame_is_lost(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        await raw.write(frame(TEXT, b"whole") + frame(TEXT, b"cut off")[:-1])
        raw.writer.close()
        assert await received(accepted, 2) == [b"whole", None]
        assert accepted.ended is not None and accepted.ended[0] == 1006


async def test_the_connection_ends_when_what_was_handed_over_has_returned(server: Server) -> None:
    async with server.pair() as (raw, accepted):
        accepted.close_now(1000)
        await raw.write(frame(CLOSE, b"\x03\xe8"))
        await eventually(lambda: not server.uvicorn.server_state.tasks)
        await eventually(lambda: not server.uvicorn.server_state.connections)


async def test_a_server_that_goes_down_says_so(server: Server) -> None:
    async with server.pair() as (raw, _accepted):
        server.uvicorn.should_exit = True
        assert await raw.close_code() == 1001


# --- keeping alive -------------------------------------------------------------------------------------


async def test_who_is_silent_past_the_time_out_leaves_with_4010(start: StartServer) -> None:
    server = await start(0.1, 0.1)
    async with server.pair() as (raw, accepted):
        assert await raw.frame() == (PING, b"")
        assert await raw.close_code() == 4010
        assert accepted.ended == (4010, "no pong")


@pytest.mark.parametrize("answer", [frame(PONG, b""), frame(TEXT, b"busy")], ids=["pong", "text"])
async def test_whoever_is_heard_after_each_ping_stays(start: StartServer, answer: bytes) -> None:
    server = await start(0.3, 0.3)
    async with server.pair() as (raw, accepted):
        for _ in range(4):
            assert await raw.frame() == (PING, b"")
            await raw.write(answer)
        assert accepted.ended is None


async def test_who_is_not_read_from_need_not_answer(start: StartServer) -> None:
    server = await start(0.1, 0.1)
    async with server.pair() as (raw, accepted):
        await raw.write(frame(TEXT, b"x") * (READ_AHEAD + 1))
        assert [await raw.frame() for _ in range(5)] == [(PING, b"")] * 5
        assert accepted.ended is None
