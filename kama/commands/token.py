"""`kama token`: issue access tokens with the local secret, and look into them."""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from kama.commands.common import AsJson, ConfigFile, DataDir, duration, print_json, read_stdin, token_keeper, user_id
from kama.config import Config, load_config
from kama.errors import ExitCode, SettingsError, Unauthorised
from kama.text import sanitize
from kama.units import format_duration


class _IssuesByDefault(TyperGroup):
    """`kama token U123456` is `kama token issue U123456`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["issue", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_IssuesByDefault, no_args_is_help=True)


@app.callback(epilog="kama token U123456 is short for kama token issue U123456.")
def token() -> None:
    """Issue an access token, or inspect one: kama token U123456."""


@app.command()
def issue(
    user: Annotated[str, typer.Argument(parser=user_id, metavar="USER", help="U and 1 to 19 of A-Z a-z 0-9 _ -")],
    ttl: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="How long it is good for: 15m, 1h")
    ] = None,
    role: Annotated[Literal["user", "viewer", "admin"], typer.Option(help="What it may do")] = "user",
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Print an access token for USER, and nothing else, on stdout."""
    config = load_config(file=config_file, data_dir=data_dir)
    seconds = config.settings.auth.access_ttl if ttl is None else ttl
    keeper, now = token_keeper(config), int(time.time())
    made = keeper.issue(user, seconds, role, now=now)
    if as_json:
        expires = int(keeper.verify(made).expires_at)
        print_json({"token": made, "user_id": user, "role": role, "expires_in": expires - now, "expires_at": expires})
    else:
        print(made)


@app.command()
def inspect(
    text: Annotated[str, typer.Argument(metavar="[TOKEN|-]", help="The token; - or nothing reads stdin")] = "-",
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show a token's claims, its time left, and whether the local secret accepts it, or why not. Exit code 4 if not."""
    import jwt

    given = (read_stdin() if text == "-" else text).strip()
    try:
        claims: dict[str, Any] | None = jwt.decode(given, options={"verify_signature": False})
    except (jwt.InvalidTokenError, UnicodeEncodeError):
        claims = None
    reason = _why_not(given, load_config(file=config_file, data_dir=data_dir))
    left = _time_left(claims)
    if as_json:
        print_json({"valid": reason is None, "reason": reason, "time_left": left, "claims": claims})
    else:
        print(json.dumps(claims, indent=2) if claims is not None else "no claims can be read")
        if left is not None:
            print(f"ends in {format_duration(left)}" if left > 0 else f"ended {format_duration(-left)} ago")
        print("valid" if reason is None else f"not valid: {sanitize(reason)}")
    if reason is not None:
        raise typer.Exit(ExitCode.AUTH)


def _why_not(given: str, config: Config) -> str | None:
    try:
        token_keeper(config).verify(given)
    except Unauthorised as error:
        return error.message
    except SettingsError as error:
        if error.field != "auth.secret":
            raise
        return f"it cannot be checked: {error.message}"
    return None


def _time_left(claims: dict[str, Any] | None) -> int | None:
    expires = (claims or {}).get("exp")
    if not isinstance(expires, int | float) or not math.isfinite(expires):
        return None
    return int(expires - time.time())
