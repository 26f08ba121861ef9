"""What comes over the socket below JSON: sizes, fragments, and bytes that are no frames."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AbstractAsyncContextManager

import pytest
from raw_websocket import Raw, frame, raw_websocket
from support import RunningNode, StartNode, bearer, eventually, text_message
from websockets.exceptions import ConnectionClosed

from kama.server.transport.server_socket import LINGER


def _of_size(size: int) -> str:
    """A message of `size` bytes."""
    empty = json.dumps(text_message("U1", "U2", ""))
    return json.dumps(text_message("U1", "U2", "x" * (size - len(empty))))


def _raw(node: RunningNode, user_id: str = "U1") -> AbstractAsyncContextManager[Raw]:
    return raw_websocket(node.port, f"/wss?client_id={user_id}", f"Authorization: {bearer(user_id)['Authorization']}")


def _no_fault(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a client sends is no fault of the node."""
    printed = capsys.readouterr()
    assert "Traceback" not in caplog.text + printed.out + printed.err
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


# --- sizes ---------------------------------------------------------------------------------------------


async def test_a_frame_of_message_size_is_read(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        assert (await peer.error_to(_of_size(65_536)))["code"] == 1001
        await peer.ping()


async def test_a_larger_frame_closes_with_1009(node: RunningNode) -> None:
    """KamaChat defect 25: there, a frame could be of any size."""
    async with node.login("U1") as peer, node.login("U2") as other:
        await peer.send(_of_size(65_537))
        assert (await peer.wait_for_close())[0] == 1009
        await other.ping()
        assert node.node.chat.counters.accepted == 0
        assert node.node.registry.closed_by_code == {1009: 1}, "the close that the socket began is on record"


async def test_the_size_is_a_setting(start_node: StartNode) -> None:
    node = await start_node(limits={"message_size": 1000})
    async with node.login("U1") as peer:
        await peer.send(_of_size(1000))
        await peer.wait_for_many(1)
        await peer.send(_of_size(1001))
        assert (await peer.wait_for_close())[0] == 1009


async def test_a_larger_message_in_fragments_closes_with_1009(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        await peer.socket.send([_of_size(65_537)[at : at + 1000] for at in range(0, 65_537, 1000)])
        assert (await peer.wait_for_close())[0] == 1009


async def test_fragments_without_an_end_close_with_1009(node: RunningNode) -> None:
    async with _raw(node) as raw:
        await raw.write(frame(1, b"{", fin=False))
        for _ in range(70):
            await raw.write(frame(0, bytes(1000), fin=False))
        assert await raw.close_code() == 1009


async def test_who_goes_on_sending_after_too_large_a_frame_still_learns_why(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        with pytest.raises(ConnectionClosed):
            while True:
                await peer.send(_of_size(200_000))
        assert (await peer.wait_for_close())[0] == 1009


async def test_who_sends_nothing_more_after_too_large_a_frame_does_not_wait_for_the_end(node: RunningNode) -> None:
    async with _raw(node) as raw:
        await raw.write(frame(1, bytes(65_000), fin=False) + frame(0, bytes(1000)))
        assert await raw.close_code() == 1009
        async with asyncio.timeout(LINGER / 2):
            assert await raw.frame() == (-1, b"")
    await eventually(lambda: not len(node.node.registry))


async def test_a_fragmented_message_is_one_message(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        text = json.dumps(text_message("U1", "U2", "in five pieces"))
        await peer.socket.send([text[at : at + 20] for at in range(0, len(text), 20)])
        assert (await peer.wait_for_many(1))[0]["content"] == "in five pieces"


async def test_a_character_split_over_two_fragments_is_whole_again(node: RunningNode) -> None:
    async with _raw(node) as raw, node.login("U2") as other:
        data = json.dumps(text_message("U1", "U2", "für"), ensure_ascii=False).encode()
        at = data.index("ü".encode()) + 1
        await raw.write(frame(1, data[:at], fin=False) + frame(9, b"between") + frame(0, data[at:]))
        assert (await other.wait_for_many(1))[0]["content"] == "für"


# --- bytes that are no frames --------------------------------------------------------------------------


async def test_text_that_is_not_utf8_closes_with_1007(
    node: RunningNode, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node.login("U1") as peer, node.login("U2") as other:
        await peer.socket.send(b'{"type":0,"content":"\xff"}', text=True)
        assert (await peer.wait_for_close())[0] == 1007
        await other.ping()
    await eventually(lambda: not len(node.node.registry))
    assert node.node.registry.closed_by_code == {1007: 1, 1000: 1}
    _no_fault(caplog, capsys)


BROKEN = {
    "an unmasked frame": b"\x81\x02{}",
    "a reserved opcode": frame(3, b"x"),
    "a reserved bit": b"\xf1\x80\0\0\0\0",
    "a continuation of nothing": frame(0, b"x"),
    "a new message inside a fragmented one": frame(1, b"x", fin=False) + frame(1, b"x"),
    "a fragmented ping": frame(9, b"x", fin=False),
    "a ping that is too long": frame(9, bytes(126)),
    "a close frame of one byte": frame(8, b"x"),
    "a close code that is none": frame(8, b"\x00\x01"),
    "a close reason that is not UTF-8": frame(8, b"\x03\xe8\xff"),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_frame_closes_that_connection_only(
    node: RunningNode, name: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node.login("U2") as other:
        async with _raw(node) as raw:
            await raw.write(BROKEN[name])
            assert await raw.close_code() in (1002, 1007)
        await eventually(lambda: len(node.node.registry) == 1)
        await other.ping()
    _no_fault(caplog, capsys)


async def test_garbage_closes_that_connection_only(
    node: RunningNode, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node.login("U2") as other:
        for _ in range(20):
            async with _raw(node) as raw:
                await raw.write(b"\x81" + os.urandom(4096))
        await eventually(lambda: len(node.node.registry) == 1)
        await other.ping()
    _no_fault(caplog, capsys)


async def test_garbage_instead_of_a_request_harms_nobody(
    node: RunningNode, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node.login("U2") as other:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b"\0\xff\r\n\r\n" + os.urandom(100))
        assert (await reader.read()).startswith((b"HTTP/1.1 400", b""))
        writer.close()
        await other.ping()
    _no_fault(caplog, capsys)


async def test_a_connection_cut_in_the_middle_of_a_frame_is_undone(
    node: RunningNode, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """KamaChat defect 3: there, the end of a reader left its connection registered."""
    async with _raw(node) as raw:
        await eventually(lambda: len(node.node.registry) == 1)
        await raw.write(frame(1, b'{"type":"ping"}')[:-3])
    await eventually(lambda: not len(node.node.registry))
    assert node.node.registry.closed_by_code == {1006: 1}
    _no_fault(caplog, capsys)


async def test_who_sends_nothing_and_answers_no_ping_leaves_with_4010(start_node: StartNode) -> None:
    """KamaChat defect 25: there, no heartbeat noticed who was gone."""
    node = await start_node(server={"ping_interval": 0.2, "pong_timeout": 0.2})
    async with _raw(node) as raw, node.login("U2") as answering:
        assert await raw.close_code() == 4010
        await answering.ping()
        assert node.node.registry.closed_by_code == {4010: 1}
