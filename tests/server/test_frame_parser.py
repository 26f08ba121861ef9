"""What the transport relies on in picows' parser, which has no public constructor."""

from __future__ import annotations

import pytest
from raw_websocket import CONTINUATION, TEXT, frame

pytest.importorskip("picows")

from picows import WSFrame

from kama.server.transport.frame_parser import FrameParsers

MAX = 1 << 20


class Taker:
    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def take_frame(self, frame: WSFrame) -> None:
        self.payloads.append(frame.get_payload_as_bytes())


class Faulty:
    def take_frame(self, frame: WSFrame) -> None:
        raise ZeroDivisionError


async def test_a_parser_is_between_frames_only_when_nothing_of_one_is_left() -> None:
    parser, taker = FrameParsers(MAX).borrow(), Taker()
    for data, between in [(b"", True), (frame(TEXT, b"one"), True), (frame(TEXT, b"two") + b"\x81", False)]:
        parser.feed(taker, data)
        assert parser.between_frames is between
    parser.feed(taker, frame(TEXT, b"three")[1:])
    assert parser.between_frames
    assert taker.payloads == [b"one", b"two", b"three"]


async def test_a_parser_serves_one_connection_after_the_other() -> None:
    parsers = FrameParsers(MAX)
    parser, one, other = parsers.borrow(), Taker(), Taker()
    parser.feed(one, frame(TEXT, b"for one"))
    parsers.give_back(parser)
    assert parsers.borrow() is parser
    parser.feed(other, frame(TEXT, b"for the other"))
    assert (one.payloads, other.payloads) == ([b"for one"], [b"for the other"])


async def test_a_parser_that_has_grown_is_not_kept() -> None:
    parsers, taker = FrameParsers(MAX), Taker()
    parser = parsers.borrow()
    parser.feed(taker, frame(TEXT, bytes(300_000)))
    assert len(taker.payloads[0]) == 300_000
    parsers.give_back(parser)
    assert parsers.borrow() is not parser


async def test_a_frame_that_is_too_large_is_refused_by_its_header() -> None:
    parser = FrameParsers(1000).borrow()
    parser.feed(Taker(), frame(TEXT, bytes(1001))[:8])
    assert parser.refusal is not None and parser.refusal[0] == 1009


async def test_a_refusal_does_not_reach_for_the_frames_behind_it() -> None:
    parser, taker = FrameParsers(MAX).borrow(), Taker()
    parser.feed(taker, frame(TEXT, b"before") + frame(3, b"") + frame(CONTINUATION, b"behind"))
    assert taker.payloads == [b"before"]
    assert parser.refusal is not None and parser.refusal[0] == 1002


async def test_a_fault_of_ours_is_not_swallowed() -> None:
    """picows would log it and go on."""
    with pytest.raises(ZeroDivisionError):
        FrameParsers(MAX).borrow().feed(Faulty(), frame(TEXT, b"x"))
