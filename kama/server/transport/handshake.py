"""The opening handshake of a WebSocket (RFC 6455, section 4.2): what was asked, and what is answered.

A request as browsers and libraries write it is read here, in a tenth of the time that a parser takes. Whatever is
written in another way is for `websockets` to judge: it accepts what is odd but right, and refuses the rest in its own
words.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from websockets.http11 import Request
from websockets.server import ServerProtocol

Header = tuple[bytes, bytes]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONNECTIONS = frozenset({b"upgrade", b"keep-alive, upgrade", b"keep-alive,upgrade"})
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_SUBPROTOCOLS = re.compile(rb"%b(, ?%b)*" % (_TOKEN, _TOKEN))
_REQUEST = re.compile(rb"GET /[!-~]* HTTP/1\.1\r\n(?:%b:[\t -~\x80-\xff]*\r\n)+\r\n" % _TOKEN)
_ORIGIN = re.compile(r"\Ahttps?://[^/?#]*", re.IGNORECASE)
_SIZE_MAX, _HEADERS_MAX = 8192, 128  # `websockets` allows as much for each line
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True, slots=True)
class Handshake:
    """A request that may be accepted. Names of headers are in small letters; `accept` answers the client's key."""

    target: bytes
    headers: list[Header]
    accept: bytes


def read_handshake(request: bytes) -> Handshake | bytes:
    """Of a whole request, which uvicorn has found to be one; else the answer that refuses it."""
    return read_usual(request) or _read_any(request)


def read_usual(request: bytes) -> Handshake | None:
    """Of any bytes: None unless they are one whole request for a WebSocket, with nothing unusual about it, and nothing
    after it."""
    if len(request) > _SIZE_MAX or not _REQUEST.fullmatch(request):
        return None
    lines = request.split(b"\r\n")
    headers = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines[1:-2])]
    found = dict(headers)
    key = found.get(b"sec-websocket-key", b"")
    if (
        len(found) < len(headers)
        or len(headers) > _HEADERS_MAX
        or b"host" not in found
        or found.get(b"connection", b"").lower() not in _CONNECTIONS
        or found.get(b"upgrade", b"").lower() != b"websocket"
        or found.get(b"sec-websocket-version") != b"13"
        or not _KEY.fullmatch(key)
        or b"content-length" in found
        or b"transfer-encoding" in found
        or not _SUBPROTOCOLS.fullmatch(found.get(b"sec-websocket-protocol", b"none"))
    ):
        return None
    return Handshake(
        lines[0][4:-9], headers, base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    )


def _read_any(request: bytes) -> Handshake | bytes:
    judge = ServerProtocol(logger=_log)
    judge.receive_data(request)
    try:
        asked = next((event for event in judge.events_received() if isinstance(event, Request)), None)
        if asked is None:
            refusal = b"".join(judge.data_to_send())
            return refusal or make_answer(400, (), f"Failed to open a WebSocket connection: {judge.handshake_exc}.\n")
        response = judge.accept(asked)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            judge.send_response(response)
            return b"".join(judge.data_to_send())
        hosts = asked.headers.get_all("Host")
        if len(hosts) != 1:  # `websockets` does not look (RFC 6455, section 4.2.1; RFC 9112, section 3.2)
            return make_answer(
                400, (), f"Failed to open a WebSocket connection: expected one Host, got {len(hosts)}.\n"
            )
    finally:
        judge.parser.close()  # it holds itself: it would wait for the collector
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in asked.headers.raw_items()]
    target = _ORIGIN.sub("", asked.path)  # a whole URL is right as well
    return Handshake(target.encode("ascii"), headers, response.headers["Sec-WebSocket-Accept"].encode("ascii"))


def make_upgrade(handshake: Handshake, headers: Iterable[Header], subprotocol: str | None) -> bytes:
    """The answer that accepts. Raises ValueError when a header cannot be one."""
    head = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        handshake.accept,
        *_lines(headers),
    ]
    if subprotocol:
        head += _lines([(b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1"))])
    return b"".join([*head, b"\r\n\r\n"])


def make_answer(status: int, headers: Iterable[Header], body: bytes | str) -> bytes:
    """Any other, after which the connection ends. Raises ValueError when a header cannot be one."""
    content = body.encode() if isinstance(body, str) else body
    given = list(headers)
    names = {name.lower() for name, _ in given}
    usual = (
        (b"Date", formatdate(usegmt=True).encode()),
        (b"Connection", b"close"),
        (b"Content-Length", b"%d" % len(content)),
        (b"Content-Type", b"text/plain; charset=utf-8"),
    )
    given += [header for header in usual if header[0].lower() not in names]
    return b"".join([b"HTTP/1.1 %d %b" % (status, _phrase(status)), *_lines(given), b"\r\n\r\n", content])


def _lines(headers: Iterable[Header]) -> list[bytes]:
    lines: list[bytes] = []
    for name, value in headers:
        if _NO_VALUE.search(name) or _NO_VALUE.search(value):
            raise ValueError(f"expected a header without control characters, got {name!r}: {value!r}")
        lines += (b"\r\n", name, b": ", value)
    return lines


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
