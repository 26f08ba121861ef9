"""A WebSocket client below the level of any library: bytes out, frames in."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
GONE = (-1, b"")


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = bytes(4)) -> bytes:
    """A masked frame, as clients send them (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([128 | size])
    else:
        length = b"\xfe" + struct.pack("!H", size) if size < 1 << 16 else b"\xff" + struct.pack("!Q", size)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if any(mask) else payload
    return bytes([(128 if fin else 0) | opcode]) + length + mask + masked


def upgrade(path: str, *headers: str, connection: str = "Upgrade") -> bytes:
    """The request for a WebSocket."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Connection: {connection}",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *headers,
    ]
    return "\r\n".join([*lines, "\r\n"]).encode()


class Raw:
    """A connection, upgraded or not yet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> str:
        """The answer to an upgrade, up to its empty line."""
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def frame(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload; GONE at the end of the stream."""
        try:
            first, length = await self.reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 15, await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return GONE

    async def close_code(self) -> int:
        """Of the close frame; what comes before it is read."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")
            assert opcode != -1, "the connection ended without a close frame"

    def reset(self) -> None:
        """End the connection as a process that was killed with unread data does."""
        if self.writer.transport.is_closing():
            return
        plain: socket.socket = self.writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def raw_connection(port: int, *, small: bool = False) -> AsyncIterator[Raw]:
    """To a port of this machine, not upgraded. A `small` one has the system keep as little as it can for it."""
    plain = socket.socket()
    if small:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=1 << 12 if small else 1 << 16)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw_websocket(port: int, path: str, *headers: str, small: bool = False) -> AsyncIterator[Raw]:
    async with raw_connection(port, small=small) as raw:
        await raw.write(upgrade(path, *headers))
        head = await raw.head()
        assert head.startswith("HTTP/1.1 101"), head
        yield raw
