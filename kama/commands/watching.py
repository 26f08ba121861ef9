"""What the commands that watch nodes share: which nodes, with whose token, and the sources for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from kama.commands.common import OPERATOR, token_keeper
from kama.config import load_config
from kama.credentials import find_server, find_token
from kama.errors import SettingsError, Unauthorised

if TYPE_CHECKING:
    from kama.server.auth import Role, TokenKeeper

_OWN_TOKEN_TTL = 600.0

Servers = Annotated[
    list[str] | None,
    typer.Option("--server", "-s", metavar="URL", help="A node; may be repeated. Also: KAMA_SERVER"),
]
FollowAll = Annotated[bool, typer.Option("--all", help="Watch every node that a node tells of, too")]
FilterText = Annotated[
    str,
    typer.Option("--filter", "-f", metavar="TERMS", help="Only these: user:U12 node=n1 failed queue>80 !idle …"),
]


def find_servers(given: list[str] | None) -> tuple[str, ...]:
    """URLs, each once. Raises SettingsError."""
    return tuple(dict.fromkeys(map(find_server, given))) if given else (find_server(None),)


def check_filter(text: str) -> None:
    """Raises what a wrong option raises, before any node is asked."""
    from kama.errors import BadParameter
    from kama.monitor_filter import parse_filter

    try:
        parse_filter(text)
    except BadParameter as error:
        raise typer.BadParameter(error.message, param_hint="--filter") from None


@dataclass(frozen=True)
class Tokens:
    """Called before each try to connect: a file or a variable may have another token by then.

    With neither, and nodes on this machine alone, it makes one from the local secret. Raises SettingsError for a
    token or secret that cannot be read, Unauthorised where there is none.
    """

    config_file: Path | None
    data_dir: Path | None
    token_file: str | None
    servers: tuple[str, ...]
    role: Role = "viewer"

    def __call__(self) -> str:
        given = find_token(self.token_file)
        return given if given is not None else self._keeper().issue(OPERATOR, _OWN_TOKEN_TTL, self.role)

    @property
    def note(self) -> str:
        """Whose token it is, where nobody gave one."""
        if self.token_file is not None or find_token(None) is not None:
            return ""
        return f"with a token of 10 minutes as {self.role}, made from the local secret"

    def _keeper(self) -> TokenKeeper:
        hint = "give a token: --token-file FILE, or KAMA_TOKEN"
        if not all(map(_is_local, self.servers)):
            raise Unauthorised(
                "no token was given, and the local secret is for nodes on this machine",
                hint=f"{hint}; kama token {OPERATOR} --role {self.role} makes one",
            )
        try:
            return token_keeper(load_config(file=self.config_file, data_dir=self.data_dir))
        except SettingsError as error:
            if error.field != "auth.secret":
                raise
            # Without a good secret kama token makes none either: what mends that comes first.
            hint = f"{error.hint}; or {hint}" if error.hint else hint
            raise Unauthorised(f"no token was given, and {error.message}", hint=hint) from None


def once(read: Callable[[], str], token_file: str | None) -> Callable[[], str]:
    """stdin can be read one time only."""
    if token_file != "-":
        return read
    token = read()
    return lambda: token


def _is_local(server: str) -> bool:
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
