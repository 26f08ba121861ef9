"""The opening handshake as bytes: what is read here, what `websockets` judges, and that the two never differ."""

from __future__ import annotations

import random

import pytest
from raw_websocket import upgrade

from kama.server.transport.handshake import Handshake, _read_any, make_answer, make_upgrade, read_handshake, read_usual

TOKEN = f"Authorization: Bearer {'x' * 200}"
USUAL = upgrade("/wss?client_id=U1&device=a+b", TOKEN)
ACCEPT = b"ICX+Yqv66kxgM0FcWaLWlFLwTAI="  # to a key of zeros


def with_headers(*headers: str) -> bytes:
    return upgrade("/wss?client_id=U1", TOKEN, *headers)


# --- the usual


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "keep-alive,Upgrade"])
def test_what_browsers_and_libraries_send_is_read(connection: str) -> None:
    request = upgrade("/wss?client_id=U1", TOKEN, "X-Empty:", "Accept: f\u00fcr \t", connection=connection)
    handshake = read_usual(request)
    assert handshake is not None
    assert (handshake.target, handshake.accept) == (b"/wss?client_id=U1", ACCEPT)
    assert handshake.headers[0] == (b"host", b"127.0.0.1")
    assert handshake.headers[-2:] == [(b"x-empty", b""), (b"accept", "f\u00fcr".encode())]
    assert handshake == _read_any(request)


@pytest.mark.parametrize("offered", ["bearer", "bearer, a.b-c_d", "bearer,x"])
def test_subprotocols_are_usual(offered: str) -> None:
    assert read_usual(with_headers(f"Sec-WebSocket-Protocol: {offered}")) is not None


UNUSUAL = {
    "nothing": b"",
    "a plain request": b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
    "half of it": USUAL[:-2],
    "a piece of it": USUAL[:100],
    "something after it": USUAL + b"\x81\x80\0\0\0\0",
    "two of it": USUAL * 2,
    "an empty line before it": b"\r\n" + USUAL,
    "another method": USUAL.replace(b"GET", b"POST"),
    "another version": USUAL.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "no path": USUAL.replace(b"/wss", b"wss"),
    "a space in the path": USUAL.replace(b"a+b", b"a b"),
    "bytes in the path": USUAL.replace(b"a+b", "\u00fc".encode()),
    "lines without CR": USUAL.replace(b"\r\n", b"\n"),
    "two Connection headers": with_headers("Connection: keep-alive"),
    "a longer Connection header": upgrade("/", connection="foo, Upgrade"),
    "no Connection: Upgrade": upgrade("/", connection="close"),
    "another upgrade": USUAL.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "another version of the protocol": USUAL.replace(b"Version: 13", b"Version: 8"),
    "a key that is too short": USUAL.replace(b"AAAAAAAAAA", b"AAAAAA"),
    "a key that is too long": USUAL.replace(b"AAAAAAAAAA", b"AAAAAAAAAAAA"),
    "a key of other letters": USUAL.replace(b"AAAAAAAAAA", b"AAAAAA!AAA"),
    "no host": USUAL.replace(b"Host", b"X-Host"),
    "two hosts": with_headers("Host: elsewhere"),
    "no key": USUAL.replace(b"Sec-WebSocket-Key", b"X-Key"),
    "a body": with_headers("Content-Length: 3"),
    "an empty body": with_headers("Content-Length: 0"),
    "chunks": with_headers("Transfer-Encoding: chunked"),
    "a header twice": with_headers("X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 5.6.7.8"),
    "a header without a colon": with_headers("foo"),
    "a header without a name": with_headers(": foo"),
    "a space before the colon": with_headers("X : foo"),
    "a folded header": with_headers("X: foo", " bar"),
    "a control character": with_headers("X: \0"),
    "a lone CR": with_headers("X: a\rb"),
    "a lone LF": with_headers("X: a\nY: b"),
    "DEL": with_headers("X: \x7f"),
    "subprotocols that are none": with_headers("Sec-WebSocket-Protocol: a b;c"),
    "129 headers": with_headers(*(f"X{number}: x" for number in range(123))),
    "more than 8 KiB": with_headers("X: " + "x" * 8000),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_for_others_to_judge(name: str) -> None:
    assert read_usual(UNUSUAL[name]) is None


def test_whatever_is_read_here_a_parser_reads_alike() -> None:
    dice = random.Random(1)
    pieces = [b"\r\n", b" ", b":", b", ", b"\t", b"\0", b"\r", b"\n", b"=", b"upgrade", b"13", b"\xff", b"A", b";"]
    both = 0
    for _ in range(5_000):
        request = bytearray(USUAL)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(request))
            request[at : at + dice.choice([0, 1, 1, 2])] = dice.choice(pieces)
        usual = read_usual(bytes(request))
        if usual is not None:
            both += 1
            assert usual == _read_any(bytes(request)), bytes(request)
    assert both > 500


# --- the unusual


def test_an_upgrade_in_other_words_is_accepted_all_the_same() -> None:
    request = upgrade("/x", "Connection: foo", "X: a", "X: b", connection="keep-alive, bar,UPGRADE")
    handshake = read_handshake(request)
    assert isinstance(handshake, Handshake)
    assert (handshake.target, handshake.accept) == (b"/x", ACCEPT)
    assert [value for name, value in handshake.headers if name == b"x"] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("another method", b"405 Method Not Allowed"),
        ("no Connection: Upgrade", b"426 Upgrade Required"),
        ("another version of the protocol", b"400 Bad Request"),
        ("no host", b"400 Bad Request"),
        ("two hosts", b"400 Bad Request"),
        ("no key", b"400 Bad Request"),
        ("a body", b"400 Bad Request"),
        ("chunks", b"400 Bad Request"),
        ("129 headers", b"431 Request Header Fields Too Large"),
    ],
)
def test_what_is_no_handshake_is_refused(name: str, status: bytes) -> None:
    answer = read_handshake(UNUSUAL[name])
    assert isinstance(answer, bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert b"\r\nconnection: close\r\n" in head.lower()
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head.lower()


@pytest.mark.parametrize("request_", [with_headers("X: " + "x" * 9000), upgrade("/" + "x" * 9000)])
def test_a_line_that_is_too_long_is_refused(request_: bytes) -> None:
    answer = read_handshake(request_)
    assert isinstance(answer, bytes) and answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 414 "))


# --- answers


def test_an_upgrade_has_its_headers_and_subprotocol() -> None:
    answer = make_upgrade(Handshake(b"/", [], ACCEPT), [(b"date", b"today")], "bearer")
    assert answer.endswith(
        b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\ndate: today\r\nSec-WebSocket-Protocol: bearer\r\n\r\n"
    )


def test_an_answer_has_what_it_lacks_of_the_usual_headers() -> None:
    answer = make_answer(403, [(b"content-type", b"application/json"), (b"x-why", b"rain")], b"{}")
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    assert (status, body) == (b"HTTP/1.1 403 Forbidden", b"{}")
    names = [line.partition(b":")[0] for line in lines]
    assert names == [b"content-type", b"x-why", b"Date", b"Connection", b"Content-Length"]


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"a\nb", b"a\0"])
def test_no_header_smuggles_another_in(value: bytes) -> None:
    with pytest.raises(ValueError, match="without control characters"):
        make_answer(403, [(b"x", value)], b"")
    with pytest.raises(ValueError, match="without control characters"):
        make_upgrade(Handshake(b"/", [], ACCEPT), [], value.decode())
