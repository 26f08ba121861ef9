"""What a command shows a node, and what a node checks it with: addresses, tokens, and the secret of the data folder."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from kama.address import DEFAULT_SERVER, check_server
from kama.config import Config, ensure_data_dir, expand, reason_of
from kama.errors import SettingsError


def find_server(flag: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The URL of the node that a command talks to: flag, KAMA_SERVER, or the default. Raises SettingsError."""
    if flag is not None:
        return check_server(flag, "--server")
    return check_server(environ.get("KAMA_SERVER") or DEFAULT_SERVER, "KAMA_SERVER")


def find_token(file: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The token that was given, from a file (`-`: stdin) or KAMA_TOKEN; None when none was. Raises SettingsError."""
    if file is None:
        given = environ.get("KAMA_TOKEN", "").strip()
        return _checked_token(given, "KAMA_TOKEN") if given else None
    place = "stdin" if file == "-" else file
    try:
        token = sys.stdin.read() if file == "-" else expand(Path(file)).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read the token in {place}: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"expected a token in {place}, got something else") from None
    return _checked_token(token.strip(), place)


def _checked_token(token: str, place: str) -> str:
    """What is more than one word would break the header that it goes into, and be quoted in the error."""
    if not token:
        raise SettingsError(f"expected a token in {place}, got nothing")
    if not re.fullmatch(r"[!-~]+", token):
        raise SettingsError(f"expected a token in {place}, got something else")
    return token


def find_secret(config: Config) -> str:
    """The secret that signs tokens: the configured one, or the data folder's own. Raises SettingsError."""
    if config.settings.auth.secret is not None:
        return config.settings.auth.secret.get_secret_value()
    path = config.secret_path
    try:
        mode = path.stat().st_mode
        secret = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise SettingsError(
            f"there is no secret: auth.secret is not set, and {path} does not exist",
            field="auth.secret",
            hint="start a node once (kama serve), it makes one",
        ) from None
    except OSError as error:
        raise SettingsError(f"cannot read the secret in {path}: {reason_of(error)}", field="auth.secret") from None
    except UnicodeDecodeError:
        raise SettingsError(f"expected a secret in ASCII in {path}, got other bytes", field="auth.secret") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise SettingsError(
            f"expected a secret that only its owner can read, got mode {stat.S_IMODE(mode):04o} at {path}",
            field="auth.secret",
            hint=f"chmod 600 {shlex.quote(str(path))}",
        )
    return secret


def ensure_secret(config: Config) -> str:
    """The secret; where none is configured and none was made yet, a new random one in the data folder."""
    if config.settings.auth.secret is None and not os.path.lexists(config.secret_path):
        ensure_data_dir(config)
        _make_secret(config.secret_path)
    return find_secret(config)


def _make_secret(path: Path) -> None:
    # A name of chance: two containers on one volume may well have the same process id.
    whole = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(48) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(whole, path)  # never half written, and never over one that another process just made
        finally:
            whole.unlink()
    except OSError as error:
        raise SettingsError(
            f"cannot make a secret in {path}: {reason_of(error)}",
            field="auth.secret",
            hint="set auth.secret, or name another folder: --data-dir DIR",
        ) from None
