"""lone_text: one whole text frame is read without a parser, and everything else is left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

picows_socket = pytest.importorskip("kama.server.transport.picows_socket", reason="picows is not installed")
MAX = 2_000


def client_frame(payload: bytes, mask: bytes = b"\x01\x02\x03\x04", first: int = 0x81) -> bytes:
    """RFC 6455, sections 5.2 and 5.3."""
    masked = bytes(byte ^ mask[number % 4] for number, byte in enumerate(payload))
    return bytes([first, 0x80 | 126]) + len(payload).to_bytes(2, "big") + mask + masked


@given(st.binary(min_size=126, max_size=MAX), st.binary(min_size=4, max_size=4))
def test_the_payload_is_unmasked(payload: bytes, mask: bytes) -> None:
    assert picows_socket.lone_text(client_frame(payload, mask), MAX) == payload


FRAME = client_frame(b"x" * 300)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(FRAME[:-1], id="a part of a frame"),
        pytest.param(FRAME[:5], id="a part of a head"),
        pytest.param(FRAME[:1], id="one byte"),
        pytest.param(FRAME + FRAME, id="two frames"),
        pytest.param(client_frame(b"x" * (MAX + 1)), id="too large"),
        pytest.param(client_frame(b"x" * 125), id="a length that is not written the shortest way"),
        pytest.param(client_frame(b"x" * 300, first=0x01), id="the first of several fragments"),
        pytest.param(client_frame(b"x" * 300, first=0x82), id="binary"),
        pytest.param(client_frame(b"x" * 300, first=0xC1), id="a reserved bit"),
        pytest.param(client_frame(b"x" * 300, first=0x88), id="a close"),
        pytest.param(bytes([0x81, 126]) + FRAME[2:], id="not masked"),
        pytest.param(bytes([0x81, 0x80 | 127]) + FRAME[2:], id="a longer form of length"),
    ],
)
def test_all_else_is_left_to_the_parser(data: bytes) -> None:
    assert picows_socket.lone_text(data, MAX) is None
