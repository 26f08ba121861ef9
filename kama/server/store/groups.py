"""GroupStore: groups and who is in them. A member's cursor starts where the conversation stood on joining."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kama.errors import BadParameter, NoSuchGroup
from kama.server.store.database import Database
from kama.server.store.schema import conversations, cursors, groups, members
from kama.server.store.upsert import upsert

_CHUNK = 500


class GroupStatus(IntEnum):
    """KamaChat's group statuses."""

    NORMAL = 0
    DISABLED = 1
    DISSOLVED = 2


class Role(IntEnum):
    """KamaChat's member roles."""

    MEMBER = 1
    ADMIN = 2
    OWNER = 3


@dataclass(frozen=True, slots=True)
class Member:
    user_id: str
    role: Role
    joined_ms: int


@dataclass(frozen=True, slots=True)
class Group:
    group_id: str
    name: str
    owner_id: str
    created_ms: int
    member_count: int
    members: Sequence[Member] = ()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class GroupStore:
    """Every change is one transaction. Raises NoSuchGroup for a group that is not there or was dissolved."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, group_id: str, owner_id: str, user_ids: Iterable[str], name: str) -> Group:
        """Raises BadParameter when the id was ever used: a dissolved group's history must not be inherited."""
        now = _now_ms()
        async with self._database.write() as tx:
            if (await tx.execute(select(groups.c.uuid).where(groups.c.uuid == group_id))).first():
                raise BadParameter(f"expected a new group id, got {group_id}, which exists or was dissolved")
            row = {"uuid": group_id, "name": name, "owner_id": owner_id, "status": 0, "created_at": now}
            await tx.execute(insert(groups), [row])
            await tx.execute(
                upsert(self._database, conversations).on_conflict_do_nothing(),
                [{"conversation": group_id, "last_seq": 0, "version": 0}],
            )
            await self._join(tx, group_id, [owner_id], Role.OWNER, now)
            await self._join(tx, group_id, sorted(set(user_ids) - {owner_id}), Role.MEMBER, now)
        return await self.get(group_id)

    async def change(self, group_id: str, add: Iterable[str], remove: Iterable[str]) -> tuple[list[str], list[str]]:
        """Who really came and who really went. Raises BadParameter when the owner is to be removed."""
        leaving, joining = set(remove), set(add)
        async with self._database.write() as tx:
            owner = await tx.scalar(
                select(groups.c.owner_id)
                .where(groups.c.uuid == group_id, groups.c.status == GroupStatus.NORMAL)
                .with_for_update()
            )
            if owner is None:
                raise NoSuchGroup(f"there is no group {group_id}")
            if owner in leaving:
                raise BadParameter(f"expected members to remove, got {owner}, the owner: dissolve the group instead")
            current = await _member_ids(tx, group_id)
            added = sorted(joining - leaving - current)
            removed = sorted(leaving & current)
            await self._join(tx, group_id, added, Role.MEMBER, _now_ms())
            await self._leave(tx, group_id, removed)
        return added, removed

    async def dissolve(self, group_id: str) -> None:
        async with self._database.write() as tx:
            done = await tx.execute(
                update(groups)
                .where(groups.c.uuid == group_id, groups.c.status == GroupStatus.NORMAL)
                .values(status=GroupStatus.DISSOLVED)
            )
            if not done.rowcount:
                raise NoSuchGroup(f"there is no group {group_id}")
            await self._leave(tx, group_id, sorted(await _member_ids(tx, group_id)))

    async def _join(self, tx: AsyncConnection, group_id: str, user_ids: Sequence[str], role: Role, now: int) -> None:
        if not user_ids:
            return
        last_seq = await tx.scalar(
            select(conversations.c.last_seq).where(conversations.c.conversation == group_id).with_for_update()
        )
        await tx.execute(
            insert(members),
            [{"group_uuid": group_id, "user_uuid": user, "role": role, "joined_at": now} for user in user_ids],
        )
        start = {"sent_seq": last_seq or 0, "delivered_seq": last_seq or 0, "read_seq": last_seq or 0}
        await tx.execute(insert(cursors), [{"user_id": user, "conversation": group_id, **start} for user in user_ids])

    async def _leave(self, tx: AsyncConnection, group_id: str, user_ids: Sequence[str]) -> None:
        for start in range(0, len(user_ids), _CHUNK):
            chunk = user_ids[start : start + _CHUNK]
            await tx.execute(delete(members).where(members.c.group_uuid == group_id, members.c.user_uuid.in_(chunk)))
            key = tuple_(cursors.c.user_id, cursors.c.conversation)
            await tx.execute(delete(cursors).where(key.in_([(user, group_id) for user in chunk])))

    async def get(self, group_id: str) -> Group:
        member_query = select(members).where(members.c.group_uuid == group_id)
        async with self._database.read() as connection:
            row = (
                await connection.execute(
                    select(groups).where(groups.c.uuid == group_id, groups.c.status == GroupStatus.NORMAL)
                )
            ).first()
            if row is None:
                raise NoSuchGroup(f"there is no group {group_id}")
            found = (await connection.execute(member_query.order_by(members.c.user_uuid))).all()
        listed = [Member(m.user_uuid, Role(m.role), m.joined_at) for m in found]
        return Group(group_id, row.name, row.owner_id, row.created_at, len(listed), listed)

    async def page(self, limit: int, after: str = "") -> list[Group]:
        """Groups in the order of their ids, without their members."""
        count = select(func.count()).where(members.c.group_uuid == groups.c.uuid).correlate(groups).scalar_subquery()
        query = (
            select(groups, count.label("member_count"))
            .where(groups.c.uuid > after, groups.c.status == GroupStatus.NORMAL)
            .order_by(groups.c.uuid)
            .limit(limit)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [Group(row.uuid, row.name, row.owner_id, row.created_at, row.member_count) for row in rows]

    async def groups_of(self, user_id: str) -> list[str]:
        """The ids of the groups that the user is in, in their order."""
        query = select(members.c.group_uuid).where(members.c.user_uuid == user_id).order_by(members.c.group_uuid)
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def member_ids(self, group_id: str) -> frozenset[str] | None:
        """None when there is no such group."""
        async with self._database.read() as connection:
            found = await _member_ids(connection, group_id)
        # A group always has its owner: nobody in it means that it is not there.
        return frozenset(found) or None


async def _member_ids(connection: AsyncConnection, group_id: str) -> set[str]:
    query = select(members.c.user_uuid).where(members.c.group_uuid == group_id)
    return set((await connection.execute(query)).scalars())
