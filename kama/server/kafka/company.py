"""Company: that a node which knows of no others stores alone.

Kafka makes the member that joined a group first its leader, and the leader shares the partitions out. A node alone
gives them all to itself, so that one which joined later finds itself without any, and knows that it is not the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

from kama.errors import SettingsError
from kama.server.kafka.connection import KafkaConnection

log = structlog.get_logger("kama.kafka")

_RETRY = 0.5


def company(group: str) -> SettingsError:
    return SettingsError(
        f"another node stores as the group {group}, and nodes find each other in Redis",
        field="redis.url",
        hint="set redis.url (KAMA_REDIS__URL) for each of them",
    )


async def refuse_company(connection: KafkaConnection, group: str, patience: float) -> None:
    """A node that was killed is a member until its session ends: wait `patience` seconds for that.

    Raises SettingsError when the group still has a member then, and CannotConnect.
    """
    async with connection.admin() as admin:
        deadline = asyncio.get_running_loop().time() + patience
        while any(described[5] for answer in await _describe(admin, group) for described in answer.groups):
            if asyncio.get_running_loop().time() > deadline:
                raise company(group)
            await asyncio.sleep(_RETRY)


async def _describe(admin: AIOKafkaAdminClient, group: str) -> Sequence[Any]:
    try:
        answers: Sequence[Any] = await admin.describe_consumer_groups([group])
        return answers
    except KafkaError as error:  # the first ever: Kafka is still making what it keeps groups in
        log.debug("group cannot be described yet", error=repr(error))
        return []


def all_to_one() -> type[AbstractPartitionAssignor]:
    """A way to share partitions out in which the group's leader keeps all. One for each consumer."""
    mark = uuid4().bytes

    class AllToOne(AbstractPartitionAssignor):  # type: ignore[misc]
        name = "kama-alone"

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            shares = {}
            for member, metadata in members.items():
                topics = metadata.subscription if metadata.user_data == mark else []
                share = [(topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in topics]
                shares[member] = ConsumerProtocolMemberAssignment(0, share, b"")
            return shares

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            return ConsumerProtocolMemberMetadata(0, list(topics), mark)

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            pass

    return AllToOne
