"""Fetching that no record can stop: one that the Kafka library cannot read is found, told and passed.

The library raises for such a record (a header's name that is not UTF-8, a codec that is not installed) from the call
that fetches, without its place, again and again; and what it had taken from other partitions by then is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from aiokafka.structs import ConsumerRecord

log = structlog.get_logger("kama.kafka")

_POLL_MS = 250
_RETRY = 0.5
_UNREADABLE = (UnicodeDecodeError, CorruptRecordException, UnsupportedCodecError)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is there, and why the library does not give it."""

    offset: int
    reason: str


Fetched = Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any] | Unreadable]]


class Fetcher:
    """Fetches from all partitions of a started consumer. `failure` is why the last fetch gave nothing.

    With a group it goes on, after a failure, from what is committed; without one, from where it stands: then the
    consumer may have one partition only.
    """

    def __init__(self, consumer: AIOKafkaConsumer, *, has_group: bool) -> None:
        self._consumer = consumer
        self._has_group = has_group
        self.failure: Exception | None = None

    async def fetch(self, most: int) -> Fetched:
        """About `most` records or fewer; none after a moment in which none came, or when it failed. Never raises."""
        try:
            fetched = await self._fetch(most)
        except Exception as error:
            log.warning("cannot fetch from Kafka: trying again", error=_told(error))
            if not isinstance(error, _UNREADABLE):
                await asyncio.sleep(_RETRY)
            self.failure = error
            return {}
        self.failure = None
        return fetched

    async def _fetch(self, most: int) -> Fetched:
        if self.failure is not None and self._has_group:
            await self._rewind()
        if isinstance(self.failure, _UNREADABLE):
            return await self._fetch_one_by_one(most)
        fetched: Fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=most)
        return fetched

    async def _rewind(self) -> None:
        for place in self._consumer.assignment():
            committed = await self._consumer.committed(place)
            if committed is None:
                await self._consumer.seek_to_beginning(place)
            else:
                self._consumer.seek(place, committed)

    async def _fetch_one_by_one(self, most: int) -> Fetched:
        """From each partition up to its share, or to the first record that is unreadable, which is passed."""
        fetched: dict[TopicPartition, list[ConsumerRecord[Any, Any] | Unreadable]] = {}
        places = self._consumer.assignment()
        for place in places:
            kept: list[ConsumerRecord[Any, Any] | Unreadable] = []
            while len(kept) * len(places) < most and await self._has_more(place):
                try:
                    one = await self._consumer.getmany(place, timeout_ms=_POLL_MS, max_records=1)
                except _UNREADABLE as error:
                    # One at a time the position moves with every record: here it stands at this one.
                    offset = await self._consumer.position(place)
                    kept.append(Unreadable(offset, f"cannot be read: {_told(error)}"))
                    self._consumer.seek(place, offset + 1)
                    break
                if not one:
                    break
                kept += one[place]
            if kept:
                fetched[place] = kept
        return fetched

    async def _has_more(self, place: TopicPartition) -> bool:
        """Without waiting for records that nobody has written yet."""
        end: int | None = self._consumer.highwater(place)
        position: int = await self._consumer.position(place)
        return end is None or position < end


def _told(error: Exception) -> str:
    # Not its repr: that of a UnicodeDecodeError holds what could not be decoded. Kafka's errors name their kind.
    return str(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}"
