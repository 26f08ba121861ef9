"""Records of the topic: a message as Kafka keeps it, and back.

The value is the client's ChatMessageRequest as JSON, as KamaChat has it; what is ours stands in headers. So anybody
can post a bare request with any Kafka producer, and it is a message like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kama.protocol import BadFrame, MessageType, conversation_id, decode_request, encode, is_stored_signal
from kama.server.broker import Record
from kama.server.snowflake import EPOCH_MS, timestamp_ms

UUID = "kama_uuid"

# Nodes have the lower half of the snowflake's node numbers, partitions of others' records the upper one.
NODES = 512
_STEPS = 4096
_MS_MAX = (1 << 41) - 1


class Poison(Exception):
    """A record that is no message, and will not become one by reading it again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies, and its time in Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def encode_record(record: Record) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers."""
    return record.key.encode(), encode(record.request), [(UUID, b"%d" % record.uuid)]


def decode_record(value: bytes | None, headers: Sequence[tuple[str, bytes]], place: Place) -> Record:
    """Raises Poison, which says why."""
    try:
        request = decode_request(value or b"")
        is_signal = request.type == MessageType.AUDIO_OR_VIDEO
        ephemeral = is_signal and not is_stored_signal(request)
    except BadFrame as error:
        raise Poison(f"{error.field}: {error.message}" if error.field else error.message) from None
    uuid = _uuid(dict(headers), place)
    key = conversation_id(request.send_id, request.receive_id)
    return Record(key, request, uuid, timestamp_ms(uuid), ephemeral)


def _uuid(headers: Mapping[str, bytes], place: Place) -> int:
    given = headers.get(UUID)
    if given is None:
        return foreign_uuid(place)
    if not (given.isdigit() and len(given) < 20 and 0 < int(given) < 1 << 63):
        raise Poison(f"expected a message id in the header {UUID}, got {given[:24]!r}")
    return int(given)


def foreign_uuid(place: Place) -> int:
    """The id of a record that brings none: always the same for the same record, so that reading it twice is seen.

    No two records share one while a partition takes at most 4096 of them a millisecond, in up to 512 partitions.
    """
    ms = place.timestamp_ms - EPOCH_MS
    if not 0 <= ms <= _MS_MAX:  # no time at all, or one that is not in milliseconds
        ms = place.offset // _STEPS & _MS_MAX
    return ms << 22 | (NODES + place.partition % NODES) << 12 | place.offset % _STEPS
