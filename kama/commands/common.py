"""What commands share: their common options, the settings, the node they talk to, and how they print."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kama.config import Config, load_config
from kama.credentials import ensure_secret, find_secret, find_server, find_token
from kama.errors import KamaError, SettingsError, Unauthorised
from kama.protocol import is_group_id, is_user_id
from kama.text import columns, conceal, escape_json, sanitize
from kama.units import parse_duration

if TYPE_CHECKING:
    from kama.client import NodeClient
    from kama.server.auth import Role, TokenKeeper

# Who the log of a node names when a command acts with the local secret and for no user.
OPERATOR = "Uoperator"
_OWN_TOKEN_TTL = 300.0
_ID = "and 1 to 19 of A-Z a-z 0-9 _ -"

# Typer reads a command's options from its signature: each command lists those it takes, and what they are is here.
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings file. Also: KAMA_CONFIG")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Where a node keeps its data. Also: KAMA_DATA_DIR")
]
Server = Annotated[
    str | None,
    typer.Option("--server", "-s", metavar="URL", help="The node to talk to. Also: KAMA_SERVER", show_default=False),
]
TokenFile = Annotated[
    str | None,
    typer.Option("--token-file", "-t", metavar="FILE", help="File with a token, - for stdin. Also: KAMA_TOKEN"),
]
AsJson = Annotated[bool, typer.Option("--json", "-j", help="Print JSON")]


# --- parsers of arguments ------------------------------------------------------------------------------


def duration(text: str | float) -> float:
    """Seconds from `10s`, `5m`, `1h30m`. Typer sends a default through it as well."""
    try:
        seconds = parse_duration(text) if isinstance(text, str) else text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if seconds <= 0:
        raise typer.BadParameter(f"expected more than nothing, got {text!r}")
    return seconds


def user_id(text: str) -> str:
    if not is_user_id(text):
        raise typer.BadParameter(f"expected a user's id, U {_ID}, got {text[:24]!r}")
    return text


def group_id(text: str) -> str:
    if not is_group_id(text):
        raise typer.BadParameter(f"expected a group's id, G {_ID}, got {text[:24]!r}")
    return text


def user_or_group_id(text: str) -> str:
    if not (is_user_id(text) or is_group_id(text)):
        raise typer.BadParameter(f"expected a user's or a group's id, U or G {_ID}, got {text[:24]!r}")
    return text


def read_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise typer.BadParameter("expected UTF-8 on stdin, got something else") from None


# --- the node ------------------------------------------------------------------------------------------


def token_keeper(config: Config, *, make_secret: bool = False) -> TokenKeeper:
    """Raises SettingsError when there is no secret, or one that is too short."""
    from kama.server.auth import TokenKeeper

    auth = config.settings.auth
    secret = ensure_secret(config) if make_secret else find_secret(config)
    try:
        return TokenKeeper(secret, algorithm=auth.algorithm, issuer=auth.issuer)
    except UnicodeEncodeError:
        reason = "expected a secret that can be written in UTF-8, got other bytes"
    except ValueError as error:
        reason = str(error)
    source = config.source("auth.secret") if auth.secret is not None else config.secret_path
    hint = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))' makes a good one"
    raise SettingsError(f"auth.secret ({source}): {reason}", field="auth.secret", hint=hint)


@dataclass(frozen=True)
class Target:
    """The node a command talks to, as its options say."""

    config_file: Path | None
    data_dir: Path | None
    server: str | None
    token_file: str | None

    @contextlib.asynccontextmanager
    async def open(self, user_id: str, role: Role = "user", *, timeout: float = 10.0) -> AsyncIterator[NodeClient]:
        """A client with the token that was given, or with one of its own for that user from the local secret."""
        from kama.client import NodeClient

        server = find_server(self.server)
        token = find_token(self.token_file)
        if token is None:
            try:
                keeper = token_keeper(load_config(file=self.config_file, data_dir=self.data_dir))
            except SettingsError as error:
                if error.field != "auth.secret":
                    raise
                async with NodeClient(server, str, timeout=timeout) as client:
                    await client.probe()  # that there is no node matters more than that there is no secret
                hint = "give a token: --token-file FILE, or KAMA_TOKEN"
                raise Unauthorised(f"no token was given, and {error.message}", hint=hint) from None
            token = keeper.issue(user_id, _OWN_TOKEN_TTL, role)
        async with NodeClient(server, lambda: token, timeout=timeout) as client:
            yield client


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Typer does not run coroutines: each command hands its own over here."""
    asyncio.run(coroutine)


# --- printing ------------------------------------------------------------------------------------------


def as_json_line(value: Any) -> str:
    """One line, safe on a terminal: JSON leaves C1 and bidirectional controls as they are."""
    return escape_json(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def print_json(value: Any) -> None:
    """One object on one line of stdout."""
    print(as_json_line(value), flush=True)


def print_table(*rows: tuple[str, ...]) -> None:
    for line in columns(rows):
        print(line)


def note(text: str) -> None:
    """One line for the person at the terminal: on stderr, so that stdout stays data."""
    print(sanitize(text), file=sys.stderr, flush=True)


def count_of(number: int, noun: str) -> str:
    """`1 member`, `2 members`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def report(error: KamaError, *, as_json: bool) -> None:
    """Tell why a command failed. Whatever a library wrote into the message, no password and no token leaves here."""
    named = not error.field or error.field in error.message
    message = conceal(error.message if named else f"{error.field}: {error.message}")
    hint = conceal(error.hint) if error.hint else None
    if as_json:
        details = {"code": error.exit_code.name.lower(), "message": message, "hint": hint}
        print(as_json_line({"error": details}), file=sys.stderr, flush=True)
        return
    note(f"kama: error: {_one_line(message)}")
    if hint:
        note(f"hint: {_one_line(hint)}")


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip())
