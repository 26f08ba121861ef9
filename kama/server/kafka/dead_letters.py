"""DeadLetters: a topic for records that are no messages, each with its reason and its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import ConsumerRecord

log = structlog.get_logger("kama.kafka")

REASON = "kama_reason"
SOURCE = "kama_source"
_RETRY = 0.5


class DeadLetters:
    """`producer` gives the one to send with now, None at the end; `failed` is told what it raised.

    `count` is how many were put here.
    """

    def __init__(
        self, topic: str, producer: Callable[[], AIOKafkaProducer | None], failed: Callable[[KafkaError], None]
    ) -> None:
        self.topic = topic
        self.count = 0
        self._producer = producer
        self._failed = failed

    async def put(self, raw: ConsumerRecord[Any, Any] | None, place: str, reason: str) -> None:
        """Returns once Kafka has it, however long that takes: nothing behind it may be committed before.

        Of a record that cannot be read (None), the place and the reason are all there is.
        """
        self.count += 1
        log.warning("record is no message: moved to the dead-letter topic", place=place, reason=reason)
        ours = [(REASON, reason.encode()), (SOURCE, place.encode())]
        # Kafka's clients refuse to send a record that has neither key nor value.
        key, value, headers = (raw.key, raw.value or b"", [*raw.headers, *ours]) if raw else (None, b"", ours)
        while (producer := self._producer()) is not None:
            try:
                await producer.send_and_wait(self.topic, value, key=key, headers=headers)
                return
            except MessageSizeTooLargeError:
                log.warning("record is too large for the dead-letter topic: moved without its value", place=place)
                key, value, headers = None, b"", ours
            except KafkaError as error:
                self._failed(error)
                log.warning("cannot reach the dead-letter topic: trying again", error=repr(error))
                await asyncio.sleep(_RETRY)
