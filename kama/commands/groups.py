"""`kama group`: make, change, list and end groups on a running node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kama.commands.common import AsJson, ConfigFile, DataDir, Server, Target, TokenFile, note, print_json, run
from kama.protocol import local_time
from kama.text import columns

_OPERATOR = "Uoperator"
_GROUPS = "/admin/groups"

app = typer.Typer(no_args_is_help=True, help="Create, change, list and dissolve groups.")

GroupId = Annotated[str, typer.Argument(metavar="G…", help="The group's id")]
UserIds = Annotated[list[str], typer.Argument(metavar="U…", help="The users")]


@app.command()
def create(
    group_id: GroupId,
    owner: Annotated[str, typer.Option("--owner", metavar="U…", help="Its owner, who is a member too")],
    member: Annotated[
        list[str] | None, typer.Option("--member", metavar="U…", help="A member; may be repeated")
    ] = None,
    name: Annotated[str, typer.Option(help="What people call it")] = "",
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Create a group."""
    body = {"group_id": group_id, "owner_id": owner, "members": member or [], "name": name}
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(_OPERATOR, "admin") as client:
            group = await client.post(_GROUPS, body)
        if as_json:
            print_json(group)
        else:
            note(f"created {group['group_id']} with {_members(group['member_count'])}")

    run(call())


@app.command()
def add(
    group_id: GroupId,
    users: UserIds,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Add users to a group."""
    run(_change(Target(config_file, data_dir, server, token_file), group_id, {"add": users}, as_json))


@app.command()
def remove(
    group_id: GroupId,
    users: UserIds,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Remove users from a group; its owner stays."""
    run(_change(Target(config_file, data_dir, server, token_file), group_id, {"remove": users}, as_json))


async def _change(target: Target, group_id: str, body: dict[str, Any], as_json: bool) -> None:
    async with target.open(_OPERATOR, "admin") as client:
        changed = await client.post(f"{_path(group_id)}/members", body)
    if as_json:
        print_json(changed)
        return
    for word in ("added", "removed"):
        if changed[word]:
            note(f"{word} {', '.join(changed[word])}")
    if not (changed["added"] or changed["removed"]):
        note("nothing changed")
    note(f"{group_id} has {_members(changed['member_count'])}")


@app.command()
def dissolve(
    group_id: GroupId,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """End a group for good: nobody is a member any more, and its id is not used again."""
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(_OPERATOR, "admin") as client:
            await client.delete(_path(group_id))
        if as_json:
            print_json({"group_id": group_id, "dissolved": True})
        else:
            note(f"dissolved {group_id}")

    run(call())


@app.command("ls")
def list_groups(
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """List the groups."""
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        groups: list[dict[str, Any]] = []
        after: str | None = None
        async with target.open(_OPERATOR, "viewer") as client:
            while True:
                page = await client.get(_GROUPS, after=after, limit=1000)
                groups += page["groups"]
                after = page["next"]
                if after is None:
                    break
        if as_json:
            print_json(groups)
            return
        rows = [(g["group_id"], str(g["member_count"]), g["owner_id"], g["name"]) for g in groups]
        _print_table(("GROUP", "MEMBERS", "OWNER", "NAME"), rows)

    run(call())


@app.command()
def show(
    group_id: GroupId,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show a group and its members."""
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(_OPERATOR, "viewer") as client:
            group = await client.get(_path(group_id))
        if as_json:
            print_json(group)
            return
        rows = [(m["user_id"], m["role"], local_time(m["joined_ms"])) for m in group["members"]]
        _print_table(("MEMBER", "ROLE", "JOINED"), rows)

    run(call())


def _path(group_id: str) -> str:
    return f"{_GROUPS}/{quote(group_id, safe='')}"


def _members(count: int) -> str:
    return f"{count} member{'' if count == 1 else 's'}"


def _print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    for line in columns([head, *rows]):
        print(line)
