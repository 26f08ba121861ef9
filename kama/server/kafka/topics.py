"""The topics of a node: what they are called, made, listed and deleted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

import structlog
from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from kama.errors import CannotConnect
from kama.server.kafka.connection import KafkaConnection

log = structlog.get_logger("kama.kafka")

_NAME_MAX = 249
# Not even a period: Kafka refuses a topic that differs from another one in `.` and `_` alone.
_NOT_PLAIN = re.compile(rb"[^A-Za-z0-9-]")


def inbox_prefix(topic: str) -> str:
    """What the inboxes of all nodes that share the topic begin with."""
    return f"{topic}.inbox."


def inbox_topic(topic: str, node: str) -> str:
    """The topic that is the node's inbox. Two names of nodes never share one.

    Every byte that is no letter, digit or `-` becomes `_` and two hexadecimal digits, `_` itself too. What would be
    longer than Kafka's 249 characters becomes `__` and a digest.
    """
    raw = node.encode()
    name = inbox_prefix(topic) + _NOT_PLAIN.sub(lambda found: b"_%02x" % found[0][0], raw).decode()
    return name if len(name) <= _NAME_MAX else f"{inbox_prefix(topic)}__{sha256(raw).hexdigest()}"


class KafkaTopics:
    """`copies` of each partition of a topic that has to be made."""

    def __init__(self, connection: KafkaConnection, copies: int) -> None:
        self._connection = connection
        self._copies = copies

    async def create(self, name: str, *, partitions: int, config: Mapping[str, str]) -> None:
        """Unless it is there. Raises CannotConnect."""
        async with self._connection.admin() as admin:
            new = NewTopic(name, partitions, self._copies, topic_configs=dict(config))
            answer = await admin.create_topics([new])
        for _, code, *message in answer.topic_errors:
            failure = for_code(code)
            if code and failure is not TopicAlreadyExistsError:
                raise CannotConnect(f"cannot create the topic {name}: {(message or [failure.__name__])[0]}")

    async def names(self) -> set[str]:
        """Raises CannotConnect."""
        async with self._connection.admin() as admin:
            return set(await admin.list_topics())

    async def delete(self, names: Sequence[str]) -> None:
        """Those that are there; a failure is logged and no more: the next sweep finds them again."""
        try:
            async with self._connection.admin() as admin:
                await admin.delete_topics(list(names))
        except CannotConnect as error:
            log.warning("topics not deleted", topics=list(names), error=repr(error))
