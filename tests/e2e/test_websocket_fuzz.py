"""Bytes that nobody in his right mind would send, against a node of its own: it lives, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
from pathlib import Path

import pytest
from raw_websocket import CLOSE, CONTINUATION, PING, PONG, TEXT, frame, raw_websocket
from support import NodeProcess, Peer, bearer

USERS = 16
CASES_OF_A_CONNECTION = 5
OPCODES = [*range(16), TEXT, TEXT, CONTINUATION, CONTINUATION, PING, PONG, CLOSE]
GROWTH_KIB = 24 * 1024  # what a node grows by in its first minutes anyway; a leak of 250 bytes a case would show


def _any_frame(dice: random.Random) -> bytes:
    """Of the right shape, with anything in it."""
    payload = dice.randbytes(dice.choice([0, 1, 2, 5, 125, 126, 300, 2000]))
    if dice.random() < 0.3:
        payload = b'{"type":0,"send_id":"U1","receive_id":"U2","content":"%b"}' % payload[:50].hex().encode()
    return frame(dice.choice(OPCODES), payload, fin=dice.random() < 0.6, mask=dice.randbytes(4))


def _garbage(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randint(1, 200))


def _flipped(dice: random.Random) -> bytes:
    """A bit or some of a frame's first bytes is another."""
    data = bytearray(_any_frame(dice))
    for _ in range(dice.randint(1, 4)):
        data[dice.randrange(min(14, len(data)))] ^= 1 << dice.randrange(8)
    return bytes(data)


def _cut(dice: random.Random) -> bytes:
    """Frames with pieces missing."""
    data = b"".join(_any_frame(dice) for _ in range(dice.randint(1, 4)))
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randint(1, 20) :]


def _false_length(dice: random.Random) -> bytes:
    size = dice.choice([0, 125, 126, 65_535, 65_536, 65_537, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
    short = b"\xfe" + (size & 0xFFFF).to_bytes(2, "big")
    length = short if dice.random() < 0.4 else b"\xff" + size.to_bytes(8, "big")
    return bytes([128 | dice.choice(OPCODES)]) + length + dice.randbytes(dice.randint(0, 300))


def _fragments(dice: random.Random) -> bytes:
    pieces = [
        frame(dice.choice([TEXT, CONTINUATION, CONTINUATION, PING]), dice.randbytes(dice.randint(0, 40)), fin=False)
        for _ in range(dice.randint(1, 50))
    ]
    return b"".join(pieces) + frame(CONTINUATION, dice.randbytes(3))


def _close(dice: random.Random) -> bytes:
    return frame(CLOSE, dice.randbytes(dice.choice([0, 1, 2, 2, 10, 125])), mask=dice.randbytes(4)) * dice.randint(1, 2)


def _request(dice: random.Random) -> bytes:
    return b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % dice.randbytes(3).hex().encode()


KINDS = (_any_frame, _garbage, _flipped, _flipped, _cut, _false_length, _fragments, _close, _request)


async def _harass(port: int, user_id: str, dice: random.Random, cases: int) -> None:
    """Send so many cases over as many connections as that takes, in pieces of any size."""
    while cases > 0:
        path, header = f"/wss?client_id={user_id}", f"Authorization: {bearer(user_id)['Authorization']}"
        async with raw_websocket(port, path, header) as raw:
            with contextlib.suppress(ConnectionError):
                for _ in range(CASES_OF_A_CONNECTION):
                    data = dice.choice(KINDS)(dice)
                    cut = dice.randint(0, len(data)) if dice.random() < 0.3 else len(data)
                    await raw.write(data[:cut])
                    await asyncio.sleep(0)
                    await raw.write(data[cut:])
                    cases -= 1
            if dice.random() < 0.5:
                raw.reset()
            elif dice.random() < 0.5:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(0.05):
                        await raw.reader.read()


async def _harass_all(url: str, dice: random.Random, cases: int) -> None:
    port = int(url.rpartition(":")[2])
    async with asyncio.TaskGroup() as group:
        for number in range(USERS):
            group.create_task(_harass(port, f"Ufuzz{number}", random.Random(dice.random()), cases // USERS))


def _resident_kib(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


async def _survives(folder: Path, websocket: str, cases: int) -> None:
    seed = int(os.environ.get("KAMA_TEST_SEED", "1"))
    dice = random.Random(seed)
    environment = {"KAMA_SERVER__WEBSOCKET": websocket, "KAMA_LIMITS__CONNECTIONS_PER_USER": "1000"}
    with NodeProcess(folder, **environment) as node:
        async with Peer(node.url, "U1") as one, Peer(node.url, "U2") as other:
            await _harass_all(node.url, dice, cases // 4)
            before = _resident_kib(node.pid)
            for number in range(1, 4):
                await _harass_all(node.url, dice, cases // 4)
                await one.say("U2", f"still here {number}")
                await other.wait_for(lambda frame, number=number: frame.get("content") == f"still here {number}")
            await one.ping()
            grown = _resident_kib(node.pid) - before
            assert one.closed is None and other.closed is None
            assert [message["seq"] for message in other.messages] == [1, 2, 3]
        log = node.log.read_text()
        assert "Traceback" not in log
        assert not re.findall(r"(?im)^.*\b(?:error|critical)\b.*$", log)
        assert grown < GROWTH_KIB, f"{grown} KiB more after {cases} cases (seed {seed})"


@pytest.mark.parametrize("websocket", ["picows", "websockets"])
@pytest.mark.timeout(180)
async def test_five_thousand_malformed_sequences_harm_nobody(tmp_path: Path, websocket: str) -> None:
    if websocket == "picows":
        pytest.importorskip("picows")
    await _survives(tmp_path, websocket, 5_000)


@pytest.mark.drill
@pytest.mark.parametrize("websocket", ["picows", "websockets"])
@pytest.mark.timeout(1800)
async def test_a_hundred_thousand_malformed_sequences_harm_nobody(tmp_path: Path, websocket: str) -> None:
    if websocket == "picows":
        pytest.importorskip("picows")
    await _survives(tmp_path, websocket, 104_000)
