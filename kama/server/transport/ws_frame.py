"""Whole, unmasked WebSocket frames, as a server writes them (RFC 6455, section 5.2)."""

from __future__ import annotations

import struct

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
_SHORT, _LONG, _VERY_LONG = (struct.Struct(form).pack for form in (">BB", ">BBH", ">BBQ"))


def make_frame(first: int, payload: bytes) -> bytes:
    """`first` is its first byte: the last fragment, and what it is."""
    size = len(payload)
    if size < 126:
        return _SHORT(first, size) + payload
    return (_LONG(first, 126, size) if size < 1 << 16 else _VERY_LONG(first, 127, size)) + payload


def text_frame(payload: bytes) -> bytes:
    size = len(payload)
    if 126 <= size < 1 << 16:  # what a chat message nearly always is
        return _LONG(TEXT, 126, size) + payload
    return make_frame(TEXT, payload)
