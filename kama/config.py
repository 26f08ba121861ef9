"""Config: defaults < TOML file < environment (`KAMA_<SECTION>__<NAME>`) < flags; each value knows its source.

The only module that reads the environment, the settings file and the secret file.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
import stat
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_config_path, user_data_path
from pydantic import ValidationError

from kama.errors import SettingsError
from kama.settings import Settings, setting_fields

DEFAULT_SERVER = "http://127.0.0.1:8000"
SECRET_FILE = "secret"
DATABASE_FILE = "kama.db"
PREFIX = "KAMA_"
# Names of ours that are no settings. What begins with one of _FOREIGN belongs to the project's scripts and tests.
PLAIN_NAMES = ("KAMA_CONFIG", "KAMA_DATA_DIR", "KAMA_SERVER", "KAMA_TOKEN")
_FOREIGN = ("KAMA_TEST_", "KAMA_SERVICES_")


_KNOWN = {item.setting for item in setting_fields()}


def environment_name(setting: str) -> str:
    """`limits.burst` -> `KAMA_LIMITS__BURST`."""
    return PREFIX + setting.replace(".", "__").upper()


# --- where they come from ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Settings, where each came from, and the folder with what the node keeps."""

    settings: Settings
    data_dir: Path
    file: Path | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, setting: str) -> str:
        return self.sources.get(setting, "default")

    def value(self, setting: str) -> Any:
        section, _, name = setting.partition(".")
        return getattr(getattr(self.settings, section), name)

    def shown(self, setting: str) -> Any:
        """The value as it may be printed."""
        return show_value(setting, self.value(setting))

    @property
    def secret_path(self) -> Path:
        return self.data_dir / SECRET_FILE


def load_config(
    *,
    file: Path | None = None,
    data_dir: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """`flags` maps setting names (`server.port`) to values that were really typed.

    Raises SettingsError: it names the setting, where it came from, what was expected and what came.
    """
    folder = data_dir or _path(environ.get("KAMA_DATA_DIR")) or user_data_path("kama", appauthor=False)
    folder = folder.expanduser().absolute()
    found = find_file(file, environ)
    layers = [_from_file(found), _from_environment(environ), _from_flags(flags or {})]
    values: dict[str, tuple[Any, str]] = {}
    for layer in layers:
        values.update(layer)
    settings = _validated(values)
    if not settings.store.url:
        url = f"sqlite+aiosqlite:///{folder / DATABASE_FILE}"
        settings = settings.model_copy(update={"store": settings.store.model_copy(update={"url": url})})
    return Config(settings, folder, found, {name: source for name, (_, source) in values.items()})


def is_set(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    return name in environ


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def find_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file: the one named, else ./kama.toml, else the user's own, else none."""
    named = file or _path(environ.get("KAMA_CONFIG"))
    if named is not None:
        if not named.expanduser().is_file():
            raise SettingsError(
                f"expected a settings file at {named}, got none", hint="kama config init FILE makes one"
            )
        return named.expanduser()
    places = (Path("kama.toml"), user_config_path("kama", appauthor=False) / "config.toml")
    return next((place for place in places if place.is_file()), None)


_Layer = dict[str, tuple[Any, str]]


def _from_file(file: Path | None) -> _Layer:
    if file is None:
        return {}
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {file}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"expected TOML in {file}, got something else: {error}") from None
    layer: _Layer = {}
    for section, content in document.items():
        if section not in Settings.model_fields:
            raise SettingsError(
                f"{file}: there is no section [{section}]", hint=_nearest(section, Settings.model_fields)
            )
        if not isinstance(content, dict):
            raise SettingsError(f"{file}: expected [{section}] to be a section, got a value")
        for name, value in content.items():
            setting = _known(f"{section}.{name}", str(file))
            layer[setting] = (value, str(file))
    return layer


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    names = {environment_name(setting): setting for setting in _KNOWN}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in PLAIN_NAMES or name.startswith(_FOREIGN):
            continue
        if name not in names:
            hint = _nearest(name, [*names, *PLAIN_NAMES])
            raise SettingsError(f"there is no setting for the environment variable {name}", hint=hint)
        layer[names[name]] = (value, name)
    return layer


def _from_flags(flags: Mapping[str, Any]) -> _Layer:
    return {setting: (value, "--" + setting.partition(".")[2].replace("_", "-")) for setting, value in flags.items()}


def _known(setting: str, source: str) -> str:
    if setting not in _KNOWN:
        raise SettingsError(f"{source}: there is no setting {setting}", hint=_nearest(setting, sorted(_KNOWN)))
    return setting


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else "kama config show lists every setting"


_EXPECTED = re.compile(r"^(?:Value error, )?(?:Input should be|expected) ", re.IGNORECASE)


def _validated(values: Mapping[str, tuple[Any, str]]) -> Settings:
    nested: dict[str, dict[str, Any]] = {}
    for setting, (value, _) in values.items():
        section, _, name = setting.partition(".")
        nested.setdefault(section, {})[name] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"][:2])
        value, source = values.get(setting, (first["input"], "default"))
        expected = _EXPECTED.sub("", first["msg"])
        got = "" if ", got " in expected else f", got {show_value(setting, value)!r}"
        raise SettingsError(f"{setting} ({source}): expected {expected}{got}", field=setting) from None


_PASSWORD = re.compile(r"(?<=://)([^/@]*):([^/]*)@")


def show_value(setting: str, value: Any) -> Any:
    """A value as it may be printed: secrets masked, passwords in URLs too."""
    if setting == "auth.secret":
        return "********" if value is not None else None
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1:***@", value)
    return list(value) if isinstance(value, tuple) else value


# --- the node to talk to -------------------------------------------------------------------------------


def find_server(flag: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The URL of the node that a command talks to: flag, KAMA_SERVER, or the default."""
    return flag or environ.get("KAMA_SERVER") or DEFAULT_SERVER


def find_token(file: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The token that was given, from a file (`-`: stdin) or KAMA_TOKEN; None when none was. Raises SettingsError."""
    if file is None:
        return environ.get("KAMA_TOKEN") or None
    try:
        token = (sys.stdin.read() if file == "-" else Path(file).expanduser().read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the token in {file}: {error}", field="token_file") from None
    if not token:
        raise SettingsError(f"expected a token in {file}, got nothing", field="token_file")
    return token


# --- the secret ----------------------------------------------------------------------------------------


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
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the secret in {path}: {error}", field="auth.secret") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise SettingsError(
            f"the secret in {path} is open to other users", field="auth.secret", hint=f"chmod 600 {path}"
        )
    return secret


def ensure_secret(config: Config) -> str:
    """The secret; where none is configured and none was made yet, a new random one in the data folder."""
    if config.settings.auth.secret is None and not config.secret_path.exists():
        _make_secret(config.secret_path)
    return find_secret(config)


def _make_secret(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(whole, path)  # never half written, and never over one that another process just made
        except FileExistsError:
            pass
        finally:
            whole.unlink()
    except OSError as error:
        raise SettingsError(f"cannot make a secret in {path}: {error}", field="auth.secret") from None
