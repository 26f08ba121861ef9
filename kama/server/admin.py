"""The routes of operators: groups, kick, drain. Every action is logged with who did it to whom and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct, field
from msgspec.structs import replace
from starlette.requests import Request

from kama.errors import BadParameter
from kama.protocol import ID_PATTERN, is_group_id
from kama.refusals import refuse_nul
from kama.server.auth import Identity
from kama.server.directory import NodeInfo
from kama.server.guard import read_body
from kama.server.handlers import number
from kama.server.peers import GroupChanged
from kama.server.store.groups import Group
from kama.server.watch import actions
from kama.server.watch.actions import note

if TYPE_CHECKING:
    from kama.server.app import Node

_PAGE = 100
_PAGE_MAX = 1000
UserId = Annotated[str, Meta(pattern=rf"^U{ID_PATTERN}\Z")]
GroupId = Annotated[str, Meta(pattern=rf"^G{ID_PATTERN}\Z")]


class GroupBody(Struct, forbid_unknown_fields=True):
    group_id: GroupId
    owner_id: UserId
    members: list[UserId] = field(default_factory=list)
    name: Annotated[str, Meta(max_length=50)] = ""


class MembersBody(Struct, forbid_unknown_fields=True):
    add: list[UserId] = field(default_factory=list)
    remove: list[UserId] = field(default_factory=list)


class KickBody(Struct, forbid_unknown_fields=True):
    user_id: UserId
    connection_id: str | None = None
    reason: Annotated[str, Meta(max_length=100)] = ""


async def create_group(node: Node, identity: Identity, request: Request) -> dict[str, Any]:
    body: GroupBody = await read_body(request, GroupBody)
    refuse_nul(body.name, "name")
    async with node.membership.change(body.group_id):
        group = await node.groups.create(body.group_id, body.owner_id, body.members, body.name)
    node.peers.post(None, GroupChanged(body.group_id))
    note(node, identity, "group created", group=group.group_id, members=group.member_count)
    return show(group)


async def list_groups(node: Node, _identity: Identity, request: Request) -> dict[str, Any]:
    limit = number(request, "limit", 1, _PAGE_MAX) or _PAGE
    after = request.query_params.get("after", "")
    refuse_nul(after, "after")
    groups = await node.groups.page(limit, after)
    listed = [{name: value for name, value in show(group).items() if name != "members"} for group in groups]
    return {"groups": listed, "next": groups[-1].group_id if len(groups) == limit else None}


async def show_group(node: Node, _identity: Identity, request: Request) -> dict[str, Any]:
    return show(await node.groups.get(_group_id(request)))


async def change_members(node: Node, identity: Identity, request: Request) -> dict[str, Any]:
    body: MembersBody = await read_body(request, MembersBody)
    group_id = _group_id(request)
    if both := set(body.add) & set(body.remove):
        raise BadParameter(f"expected each user in add or in remove, got {min(both)} in both")
    async with node.membership.change(group_id):
        added, removed = await node.groups.change(group_id, body.add, body.remove)
    node.peers.post(None, GroupChanged(group_id))
    note(node, identity, "group changed", group=group_id, added=len(added), removed=len(removed))
    members = await node.membership.members(group_id) or ()
    return {"added": added, "removed": removed, "member_count": len(members)}


async def dissolve_group(node: Node, identity: Identity, request: Request) -> None:
    group_id = _group_id(request)
    async with node.membership.change(group_id):
        await node.groups.dissolve(group_id)
    node.peers.post(None, GroupChanged(group_id))
    note(node, identity, "group dissolved", group=group_id)


async def kick(node: Node, identity: Identity, request: Request) -> dict[str, int]:
    """Closes a user's connections, or one of them, with 4002: it should not come back by itself."""
    body: KickBody = await read_body(request, KickBody)
    return {"closed": await actions.kick(node, identity, body.user_id, body.connection_id, body.reason)}


async def list_nodes(node: Node, _identity: Identity, _request: Request) -> Sequence[NodeInfo]:
    """The nodes of the cluster as they last announced themselves; none for a node that is alone."""
    return [replace(info, node=None) for info in node.directory.nodes]


async def drain(node: Node, identity: Identity, _request: Request) -> None:
    """Shut the node down as SIGTERM does."""
    actions.drain(node, identity)


def _group_id(request: Request) -> str:
    group_id: str = request.path_params["group_id"]
    if not is_group_id(group_id):
        raise BadParameter(f"expected a group id G…, got {group_id[:24]!r}", field="group_id")
    return group_id


def show(group: Group) -> dict[str, Any]:
    return {
        "group_id": group.group_id,
        "name": group.name,
        "owner_id": group.owner_id,
        "created_ms": group.created_ms,
        "members": [
            {"user_id": member.user_id, "role": member.role.name.lower(), "joined_ms": member.joined_ms}
            for member in group.members
        ],
        "member_count": group.member_count,
    }
