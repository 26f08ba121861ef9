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

from kama.config import Config, ensure_secret, find_secret, find_server, find_token, load_config
from kama.errors import KamaError, SettingsError, Unauthorised
from kama.units import parse_duration

if TYPE_CHECKING:
    from kama.client import NodeClient
    from kama.server.auth import Role, TokenKeeper

_OWN_TOKEN_TTL = 300.0

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


def duration(text: str | float) -> float:
    """A Typer parser: seconds from `10s`, `5m`, `1h30m`. Typer sends a default through it as well."""
    try:
        seconds = parse_duration(text) if isinstance(text, str) else text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if seconds <= 0:
        raise typer.BadParameter(f"expected more than nothing, got {text!r}")
    return seconds


def token_keeper(config: Config, *, make_secret: bool = False) -> TokenKeeper:
    """Raises SettingsError when there is no secret, or one that is too short."""
    from kama.server.auth import TokenKeeper

    auth = config.settings.auth
    secret = ensure_secret(config) if make_secret else find_secret(config)
    try:
        return TokenKeeper(secret, algorithm=auth.algorithm, issuer=auth.issuer)
    except ValueError as error:
        source = config.source("auth.secret") if auth.secret else config.secret_path
        raise SettingsError(f"auth.secret ({source}): {error}", field="auth.secret") from None


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

        token = find_token(self.token_file)
        server = find_server(self.server)
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


def print_json(value: Any) -> None:
    """One object on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), flush=True)


def note(text: str) -> None:
    """For the person at the terminal: stderr, so that stdout stays data."""
    print(text, file=sys.stderr, flush=True)


def report(error: KamaError, *, as_json: bool) -> None:
    """Tell why a command failed."""
    if as_json:
        details = {"code": error.exit_code.name.lower(), "message": error.message, "hint": error.hint}
        note(json.dumps({"error": details}, ensure_ascii=False))
        return
    note(f"kama: error: {_one_line(error.message)}")
    if error.hint:
        note(f"hint: {_one_line(error.hint)}")


def _one_line(text: str) -> str:
    from kama.text import sanitize

    return sanitize(re.sub(r"\s*\n\s*", " ", text))
