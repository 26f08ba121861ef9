"""Config: defaults < TOML file < environment (`KAMA_<SECTION>__<NAME>`) < flags; each value knows its source.

With `credentials`, the only module that reads the environment and the files of a person.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_config_path, user_data_path
from pydantic import ValidationError

from kama.errors import SettingsError
from kama.settings import Settings, setting_fields
from kama.text import conceal

SECRET_FILE = "secret"
DATABASE_FILE = "kama.db"
PREFIX = "KAMA_"
# Names of ours that are no settings. What begins with one of _FOREIGN belongs to the project's scripts and tests.
PLAIN_NAMES = ("KAMA_CONFIG", "KAMA_DATA_DIR", "KAMA_SERVER", "KAMA_TOKEN")
_FOREIGN = ("KAMA_TEST_", "KAMA_SERVICES_")

_KNOWN = {item.setting: item for item in setting_fields()}


def environment_name(setting: str) -> str:
    """`limits.burst` -> `KAMA_LIMITS__BURST`."""
    return PREFIX + setting.replace(".", "__").upper()


# --- where they come from ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Settings, where each came from, and the folder with what the node keeps.

    `sources` has the settings that are not at their defaults, and `data_dir` when somebody named it.
    """

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
    def database_file(self) -> Path | None:
        """None when the database is not SQLite."""
        scheme, found, rest = self.settings.store.url.partition(":///")
        return Path(rest.partition("?")[0]) if found and scheme.startswith("sqlite") else None

    @property
    def secret_path(self) -> Path:
        return self.data_dir / SECRET_FILE


def load_config(
    *,
    file: Path | None = None,
    data_dir: Path | None = None,
    flags: Mapping[str, tuple[Any, str]] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """`flags` maps settings (`server.port`) that were really typed to the value and the name of the flag.

    Raises SettingsError: it names the setting, where it came from, what was expected and what came.
    """
    folder, sources = _data_dir(data_dir, environ)
    found = find_file(file, environ)
    values: _Layer = {**_from_file(found), **_from_environment(environ), **(flags or {})}
    settings = _validated(values)
    if not settings.store.url:
        url = f"sqlite+aiosqlite:///{folder / DATABASE_FILE}"
        settings = settings.model_copy(update={"store": settings.store.model_copy(update={"url": url})})
    sources |= {name: source for name, (_, source) in values.items()}
    return Config(settings, folder, found, sources)


def _data_dir(flag: Path | None, environ: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    named = flag or _path(environ.get("KAMA_DATA_DIR"))
    folder = expand(named or user_data_path("kama", appauthor=False)).absolute()
    sources = {"data_dir": "--data-dir" if flag else "KAMA_DATA_DIR"} if named else {}
    if "?" in str(folder):
        # Legal in a path, but in the URL of a database it begins the options.
        raise SettingsError(
            f"data_dir ({sources.get('data_dir', 'default')}): expected a path without a question mark, got {folder}",
            field="data_dir",
        )
    return folder, sources


def ensure_data_dir(config: Config) -> None:
    """The data folder is there after this, and only its owner looks into one that this made."""
    source = config.source("data_dir")
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = "that is a file" if isinstance(error, FileExistsError) else reason_of(error)
        raise SettingsError(
            f"data_dir ({source}): expected a folder, or a place where one can be made, got {config.data_dir}: {why}",
            field="data_dir",
            hint="name another one: --data-dir DIR, or KAMA_DATA_DIR",
        ) from None


def expand(path: Path) -> Path:
    """Path.expanduser raises on a `~name` that is nobody's; the shell and this leave it as it is."""
    return Path(os.path.expanduser(path))


def reason_of(error: OSError) -> str:
    """What went wrong, without the number and the path."""
    return error.strerror or str(error)


def is_set(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    return name in environ


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def find_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file: the one named, else ./kama.toml, else the user's own, else none."""
    named = file or _path(environ.get("KAMA_CONFIG"))
    if named is not None:
        path, source = expand(named), "--config" if file else "KAMA_CONFIG"
        if os.path.exists(path) and not os.path.isdir(path):
            return path
        found = "a folder" if os.path.isdir(path) else "nothing"
        raise SettingsError(
            f"expected {source} to name a settings file, got {found} at {path}",
            hint="kama config init FILE makes one",
        )
    places = (Path("kama.toml"), user_config_path("kama", appauthor=False) / "config.toml")
    return next((place for place in places if os.path.isfile(place)), None)


_Layer = dict[str, tuple[Any, str]]


def _from_file(file: Path | None) -> _Layer:
    if file is None:
        return {}
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {file}: {reason_of(error)}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"expected UTF-8 in {file}, got something else: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"expected TOML in {file}, got something else: {error}") from None
    layer: _Layer = {}
    for section, content in document.items():
        if section not in Settings.model_fields:
            if isinstance(content, dict):
                hint = _nearest(section, Settings.model_fields)
                raise SettingsError(f"{file}: there is no section [{section}]", hint=hint)
            hint = _nearest(section, _KNOWN)
            raise SettingsError(f"{file}: expected {section} to stand in a section, got it outside", hint=hint)
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
            hint = _nearest(name.upper(), [*names, *PLAIN_NAMES])
            raise SettingsError(f"there is no setting for the environment variable {name}", hint=hint)
        layer[names[name]] = (value, name)
    return layer


def _known(setting: str, source: str) -> str:
    if setting not in _KNOWN:
        raise SettingsError(f"{source}: there is no setting {setting}", hint=_nearest(setting, _KNOWN))
    return setting


def _nearest(name: str, known: Collection[str]) -> str:
    """A hint: the name that was probably meant."""
    own_name = name.rpartition(".")[2]
    elsewhere = [other for other in known if other.rpartition(".")[2] == own_name]
    close = difflib.get_close_matches(name, elsewhere or known, n=1, cutoff=0.0 if elsewhere else 0.6)
    return f"did you mean {close[0]}?" if close else "kama config env lists every setting"


# pydantic's sentences, down to what was expected.
_EXPECTED = re.compile(
    r"^(?:Value error, )?(?:(?:Input|String|Value) should (?:be|have|match)|expected) ", re.IGNORECASE
)
_UNPARSED = re.compile(r", (?:unable to parse|got a number with).*")


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
        value, source = values[setting]
        expected = _UNPARSED.sub("", _EXPECTED.sub("", first["msg"])).replace("valid tuple", "list")
        got = "" if ", got " in expected else f", got {_short(show_value(setting, value))}"
        raise SettingsError(
            f"{setting} ({source}): expected {expected}{got}",
            field=setting,
            hint=_about(setting),
        ) from None


def _short(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= 100 else f"{written[:99]}…"


def _about(setting: str) -> str:
    item = _KNOWN[setting]
    default = "" if item.default is None else f" (default: {item.default})"
    return f"{setting}: {item.description}{default}"


def show_value(setting: str, value: Any) -> Any:
    """A value as it may be printed: secrets masked, passwords in URLs too."""
    if setting in ("auth.secret", "kafka.sasl_password"):
        return "********" if value is not None else None
    if isinstance(value, str):
        return conceal(value)
    return list(value) if isinstance(value, tuple) else value
