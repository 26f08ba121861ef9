"""`kama bench`: made-up users talk over one or more nodes; what they took, and whether anything was lost."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from kama.bench.plan import GROUP_SIZE_MAX, GROUPS_MAX, MESSAGE_SIZE_MAX, MESSAGE_SIZE_MIN, PAIRS_MAX, Pattern, Plan
from kama.commands.common import (
    AsJson,
    ConfigFile,
    DataDir,
    count_of,
    duration,
    note,
    print_json,
    print_table,
    token_keeper,
)
from kama.config import load_config
from kama.credentials import find_server, find_token
from kama.errors import KamaError, SettingsError, Unauthorised
from kama.units import parse_size

if TYPE_CHECKING:
    from kama.bench.ledger import Verdict
    from kama.bench.plan import Issue
    from kama.bench.result import Result
    from kama.bench.tally import Tally


def _message_size(text: str | int) -> int:
    """Typer sends a default through it as well."""
    try:
        size = parse_size(text) if isinstance(text, str) else text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not MESSAGE_SIZE_MIN <= size <= MESSAGE_SIZE_MAX:
        raise typer.BadParameter(f"expected {MESSAGE_SIZE_MIN} to {MESSAGE_SIZE_MAX} bytes, got {text!r}")
    return size


def _warmup(text: str | float) -> float:
    return 0.0 if text in ("0", "0s", 0) else duration(text)


def bench(
    server: Annotated[
        list[str] | None,
        typer.Option("--server", "-s", metavar="URL", help="A node; may be repeated. Also: KAMA_SERVER"),
    ] = None,
    pattern: Annotated[Pattern, typer.Option(help="Pairs, groups, or logins")] = "relay",
    pairs: Annotated[int, typer.Option(min=1, max=PAIRS_MAX, help="Pairs of users")] = 50,
    groups: Annotated[int, typer.Option(min=0, max=GROUPS_MAX, help="Groups, for fanout; 0: one")] = 0,
    size: Annotated[int, typer.Option(min=2, max=GROUP_SIZE_MAX, help="Members of each group")] = 10,
    message_size: Annotated[
        int, typer.Option(parser=_message_size, metavar="SIZE", help="Bytes of each message's content")
    ] = 200,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=1e6, help="Messages (logins) a second in total; without: as fast as answers come"),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--duration", parser=duration, metavar="DURATION", help="How long to measure")
    ] = 10.0,
    warmup: Annotated[float, typer.Option(parser=_warmup, metavar="DURATION", help="Load before that")] = 1.0,
    settle: Annotated[
        float, typer.Option(parser=duration, metavar="DURATION", help="How long to wait for what is outstanding")
    ] = 30.0,
    window: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Messages of a conversation (logins) under way at most")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Keep a ledger; exit code 1: lost, duplicated or reordered")
    ] = False,
    yes_remote: Annotated[bool, typer.Option("--yes-remote", help="Load a node on another machine")] = False,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file", "-t", metavar="FILE", help="File with an operator's token, - for stdin, instead of our own"
        ),
    ] = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Put load on a node and measure it; with --verify, prove that it lost nothing."""
    _check(pattern, groups, verify)
    plan = Plan(
        nodes=_nodes(server, yes_remote),
        pattern=pattern,
        pairs=pairs,
        groups=groups,
        group_size=size,
        message_size=message_size,
        rate=rate,
        window=window or _window(rate),
        duration=seconds,
        warmup=warmup,
        settle=settle,
        verify=verify,
    )
    from kama.bench.transport import loop_factory

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_bench(plan, _Tokens(config_file, data_dir, token_file), as_json))


def _check(pattern: Pattern, groups: int, verify: bool) -> None:
    if groups and pattern != "fanout":
        raise typer.BadParameter(f"expected --pattern fanout for groups, got {pattern}", param_hint="--groups")
    if verify and pattern == "connect":
        raise typer.BadParameter("expected relay or fanout: connect sends no messages", param_hint="--verify")


def _window(rate: float | None) -> int:
    """At a rate, what is due has to go out while earlier messages are still on their way."""
    return 4 if rate is None else 100


def _nodes(given: list[str] | None, yes_remote: bool) -> tuple[str, ...]:
    nodes = tuple(dict.fromkeys(map(find_server, given))) if given else (find_server(None),)
    for node in nodes:
        if not yes_remote and not _is_loopback(urlsplit(node).hostname or ""):
            raise SettingsError(
                f"expected a node on this machine, got {node}: load on somebody else's node is an attack",
                hint="if the node is yours: --yes-remote",
            )
    return nodes


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Tokens:
    """Tokens for the users of a run, and for its operator: the one that --token-file gives, or one of ours."""

    def __init__(self, config_file: Path | None, data_dir: Path | None, token_file: str | None) -> None:
        self._config_file = config_file
        self._data_dir = data_dir
        self._token_file = token_file

    async def issuer(self, plan: Plan) -> Issue:
        """Raises Unauthorised without a secret, but CannotConnect when there is no node either."""
        given = find_token(self._token_file)
        try:
            keeper = token_keeper(load_config(file=self._config_file, data_dir=self._data_dir))
        except SettingsError as error:
            if error.field != "auth.secret":
                raise
            await _probe(plan)
            raise Unauthorised(
                f"bench makes up its users and signs their tokens{', one token is not enough' if given else ''}, "
                f"and {error.message}",
                hint="give the node's settings: --data-dir DIR, --config FILE, or KAMA_AUTH__SECRET",
            ) from None
        operator = given if self._token_file is not None else None
        ttl = plan.token_ttl()

        def issue(user_id: str, for_operator: bool) -> str:
            if for_operator and operator is not None:
                return operator
            return keeper.issue(user_id, ttl, "admin" if for_operator else "user")

        return issue


async def _probe(plan: Plan) -> None:
    from kama.client import NodeClient

    for node in plan.nodes:
        async with NodeClient(node, str) as client:
            await client.probe()


# --- a run ---------------------------------------------------------------------------------------------


async def _bench(plan: Plan, tokens: _Tokens, as_json: bool) -> None:
    """Prints what was found also of a run that was interrupted or failed."""
    from kama.bench.result import Result
    from kama.bench.tally import Tally

    issue, tally = await tokens.issuer(plan), Tally()
    try:
        async with _progress(plan, tally, as_json):
            verdict = await _load(plan, issue, tally)
    except (KamaError, asyncio.CancelledError):
        if tally.zero:
            _print(Result(plan, tally, interrupted=True), as_json)
        raise
    _print(Result(plan, tally, verdict), as_json)
    if verdict is not None and not verdict.ok:
        raise KamaError(
            f"lost {verdict.lost}, duplicated {verdict.duplicated}, reordered {verdict.reordered} "
            f"of {count_of(tally.sent, 'message')}",
            hint=_details(verdict),
        )


async def _load(plan: Plan, issue: Issue, tally: Tally) -> Verdict | None:
    if plan.pattern == "connect":
        from kama.bench.logins import Logins

        await Logins(plan, issue, tally).run()
        return None
    from kama.bench.load import Load

    return await Load(plan, issue, tally).run()


@contextlib.asynccontextmanager
async def _progress(plan: Plan, tally: Tally, as_json: bool) -> AsyncIterator[None]:
    if as_json or not sys.stderr.isatty() or os.environ.get("CI"):
        yield
        return
    from kama.bench.load import first_failure
    from kama.bench.progress import show_progress

    with first_failure():
        async with asyncio.TaskGroup() as tasks:
            shown = tasks.create_task(show_progress(plan, tally))
            yield
            shown.cancel()


def _print(result: Result, as_json: bool) -> None:
    found: dict[str, Any] = result.as_dict()
    if as_json:
        print_json(found)
    else:
        print_table(*result.rows())
    for warning in found["warnings"]:
        if not as_json:
            note(f"warning: {warning}")


def _details(verdict: Verdict) -> str:
    from dataclasses import asdict

    return ", ".join(f"{name} {count}" for name, count in asdict(verdict).items() if count)
