"""`kama group`: make, change, list and end groups on a running node."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kama.commands.common import (
    OPERATOR,
    AsJson,
    ConfigFile,
    DataDir,
    Server,
    Target,
    TokenFile,
    count_of,
    group_id,
    note,
    print_json,
    print_table,
    run,
    user_id,
)
from kama.protocol import local_time

_GROUPS = "/admin/groups"

app = typer.Typer(no_args_is_help=True, help="Create, change, list and dissolve groups.")

GroupId = Annotated[str, typer.Argument(parser=group_id, metavar="G…", help="The group's id")]
UserIds = Annotated[list[str], typer.Argument(parser=user_id, metavar="U…", help="The users")]


@app.command()
def create(
    group: GroupId,
    owner: Annotated[str, typer.Option("--owner", parser=user_id, metavar="U…", help="Its owner, who is a member too")],
    member: Annotated[
        list[str] | None, typer.Option("--member", parser=user_id, metavar="U…", help="A member; may be repeated")
    ] = None,
    name: Annotated[str, typer.Option(help="What people call it")] = "",
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Create a group."""
    body = {"group_id": group, "owner_id": owner, "members": member or [], "name": name}
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(OPERATOR, "admin") as client:
            created = await client.post(_GROUPS, body)
        if as_json:
            print_json(created)
        else:
            note(f"created {created['group_id']} with {count_of(created['member_count'], 'member')}")

    run(call())


@app.command()
def add(
    group: GroupId,
    users: UserIds,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Add users to a group."""
    run(_change(Target(config_file, data_dir, server, token_file), group, {"add": users}, as_json))


@app.command()
def remove(
    group: GroupId,
    users: UserIds,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Remove users from a group; its owner stays."""
    run(_change(Target(config_file, data_dir, server, token_file), group, {"remove": users}, as_json))


async def _change(target: Target, group: str, body: dict[str, Any], as_json: bool) -> None:
    async with target.open(OPERATOR, "admin") as client:
        changed = await client.post(f"{_path(group)}/members", body)
    if as_json:
        print_json(changed)
        return
    for word in ("added", "removed"):
        if changed[word]:
            note(f"{word} {', '.join(changed[word])}")
    if not (changed["added"] or changed["removed"]):
        note("nothing changed")
    note(f"{group} has {count_of(changed['member_count'], 'member')}")


@app.command()
def dissolve(
    group: GroupId,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """End a group for good: nobody is a member any more, and its id is not used again."""
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(OPERATOR, "admin") as client:
            await client.delete(_path(group))
        if as_json:
            print_json({"group_id": group, "dissolved": True})
        else:
            note(f"dissolved {group}")

    run(call())


@app.command("ls")
def list_groups(
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """List the groups; with --json one object a line."""
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        groups: list[dict[str, Any]] = []
        after: str | None = None
        async with target.open(OPERATOR, "viewer") as client:
            while True:
                page = await client.get(_GROUPS, after=after, limit=1000)
                groups += page["groups"]
                after = page["next"]
                if after is None:
                    break
        if as_json:
            for group in groups:
                print_json(group)
            return
        rows = [(g["group_id"], str(g["member_count"]), g["owner_id"], g["name"]) for g in groups]
        print_table(("GROUP", "MEMBERS", "OWNER", "NAME"), *rows)

    run(call())


@app.command()
def show(
    group: GroupId,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show a group and its members."""
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(OPERATOR, "viewer") as client:
            shown = await client.get(_path(group))
        if as_json:
            print_json(shown)
            return
        rows = [(m["user_id"], m["role"], local_time(m["joined_ms"])) for m in shown["members"]]
        print_table(("MEMBER", "ROLE", "JOINED"), *rows)

    run(call())


def _path(group: str) -> str:
    return f"{_GROUPS}/{group}"
