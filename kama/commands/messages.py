"""`kama history` and `kama kick`: what was said, and who has to leave."""

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
from kama.protocol import HISTORY_LIMIT, HISTORY_LIMIT_MAX, MessageStatus, MessageType


def history(
    one: Annotated[str | None, typer.Argument(parser=user_id, metavar="U1", help="One of the two users")] = None,
    two: Annotated[str | None, typer.Argument(parser=user_id, metavar="U2", help="The other one")] = None,
    group: Annotated[
        str | None, typer.Option("--group", "-g", parser=group_id, metavar="G…", help="A group instead")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=HISTORY_LIMIT_MAX, help="How many messages")
    ] = HISTORY_LIMIT,
    before_seq: Annotated[int | None, typer.Option(min=0, help="Only what came before this seq")] = None,
    after_seq: Annotated[int | None, typer.Option(min=0, help="Only what came after this seq")] = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show a conversation, oldest first: kama history U1 U2, or kama history --group G1."""
    if (group is None) == (one is None or two is None) or (group is not None and one is not None):
        raise typer.BadParameter("expected two users, or --group and a group", param_hint="U1 U2")
    path, query = _history_of(one, two, group)
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(OPERATOR, "admin") as client:
            messages = await client.get(path, **query, limit=limit, before_seq=before_seq, after_seq=after_seq)
        if as_json:
            for message in messages:
                print_json(message)
        else:
            print_table(*map(_row, messages))

    run(call())


def _history_of(one: str | None, two: str | None, group: str | None) -> tuple[str, dict[str, str]]:
    if group is not None:
        return "/message/getGroupMessageList", {"groupId": group}
    return "/message/getMessageList", {"userOneId": one or "", "userTwoId": two or ""}


def _row(message: dict[str, Any]) -> tuple[str, ...]:
    kind = MessageType(message["type"])
    said = (
        message["content"]
        if kind == MessageType.TEXT
        else f"[{kind.name.lower()}] {message['file_name'] or message['url']}"
    )
    status = MessageStatus(message["status"]).name.lower()
    return str(message["seq"]), message["created_at"], message["send_id"], status, said


def kick(
    user: Annotated[str, typer.Argument(parser=user_id, metavar="U…", help="Who has to leave")],
    connection_id: Annotated[str | None, typer.Option("--connection", help="Only this connection")] = None,
    reason: Annotated[str, typer.Option(help="Told to the client, and logged")] = "",
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Close a user's connections with 4002: its clients do not come back by themselves."""
    body = {"user_id": user, "connection_id": connection_id, "reason": reason}
    target = Target(config_file, data_dir, server, token_file)

    async def call() -> None:
        async with target.open(OPERATOR, "admin") as client:
            done = await client.post("/admin/kick", body)
        if as_json:
            print_json(done)
        else:
            note(f"closed {count_of(done['closed'], 'connection')} of {user}")

    run(call())
