"""What a relay has to read of a message: where it comes from and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

Connection = TypeVar("Connection")


class Address(msgspec.Struct):
    send_id: str
    receive_id: str

    def recipients(self, connections: Mapping[str, Connection]) -> list[Connection]:
        """Of a pair the receiver and the sender; of a group everybody: only its members are connected."""
        if self.receive_id.startswith("G"):
            return list(connections.values())
        ends = (connections.get(self.receive_id), connections.get(self.send_id))
        return [connection for connection in ends if connection is not None]


decode = msgspec.json.Decoder(Address).decode
