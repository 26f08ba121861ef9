"""Redactor: frames without the names of people, places and things, of which one still tells which is which."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import msgspec
from msgspec import Struct

from kama.monitor.frames import Frame
from kama.monitor_protocol import Bye
from kama.protocol import is_group_id, is_user_id

# What these hold are words of ours, numbers, or ids that mean nothing elsewhere. Every other text is hashed, also
# one of a field that is added some day.
_OPEN = frozenset({"kind", "state", "mode", "version", "epoch", "role", "uuid", "actions"})


class Redactor:
    """The same text is the same hash within one recording, and in no other: the key is random and kept nowhere."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def text(self, text: str) -> str:
        """Users stay users and groups groups, so that filters and rules go on to work."""
        if not text:
            return text
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=5).hexdigest()
        kind = text[0] if is_user_id(text) or is_group_id(text) else "x"
        return kind + digest

    def frame(self, frame: Frame) -> Frame:
        redacted: Frame = self._value(frame)
        return redacted

    def _value(self, value: Any) -> Any:
        if isinstance(value, Struct):
            return self._struct(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(each) for each in value]
        if isinstance(value, dict):  # its keys are names of queues and of what fails
            return {key: self._value(each) for key, each in value.items()}
        return value

    def _struct(self, struct: Struct) -> Struct:
        is_open = _OPEN | {"reason"} if isinstance(struct, Bye) else _OPEN
        changed = {
            name: self._value(value)
            for name in struct.__struct_fields__
            if name not in is_open and isinstance(value := getattr(struct, name), str | list | dict | Struct)
        }
        return msgspec.structs.replace(struct, **changed)
