"""`kama config`: which settings are in force and where each comes from; a first settings file."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from kama.commands.common import AsJson, ConfigFile, DataDir, note, print_json, print_table, token_keeper
from kama.config import PLAIN_NAMES, environment_name, is_set, load_config
from kama.errors import SettingsError
from kama.settings import setting_fields, to_toml
from kama.text import sanitize

app = typer.Typer(no_args_is_help=True, help="Show, check and make settings.")

_PLAIN_HELP = ("The settings file", "The data folder", "The node that commands talk to", "The token that they use")


@app.command()
def show(as_json: AsJson = False, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Print every setting with its value and where it comes from; secrets are masked."""
    config = load_config(file=config_file, data_dir=data_dir)
    names = [item.setting for item in setting_fields()]
    if as_json:
        print_json({name: {"value": config.shown(name), "source": config.source(name)} for name in names})
        return
    rows = [(name, _written(config.shown(name)), config.source(name)) for name in names]
    print_table(("SETTING", "VALUE", "SOURCE"), *rows)


def _written(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)


@app.command()
def check(as_json: AsJson = False, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Read all settings and try the secret; exit code 2 and the reason when something is wrong."""
    config = load_config(file=config_file, data_dir=data_dir)
    has_secret = config.settings.auth.secret is not None or config.secret_path.exists()
    if has_secret:
        token_keeper(config)
    secret = "usable" if has_secret else "none yet: kama serve makes one"
    file = str(config.file) if config.file else None
    if as_json:
        print_json({"ok": True, "file": file, "data_dir": str(config.data_dir), "secret": secret})
    else:
        print(f"settings ok (file: {sanitize(file or 'none')}; secret: {secret})")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it")] = Path("kama.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there")] = False,
) -> None:
    """Write a settings file with every setting, its default and a comment."""
    try:
        # It may come to hold a secret or a password: for its owner alone from the start.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o600)
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write(to_toml())
    except FileExistsError:
        hint = f"kama config init --force {shlex.quote(str(file))}"
        raise SettingsError(f"expected the name of a new file, got {file}, which is there already", hint=hint) from None
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error.strerror or error}") from None
    note(f"wrote {file}")


@app.command()
def path(as_json: AsJson = False, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Print where the settings file, the data folder, the secret and the database are."""
    config = load_config(file=config_file, data_dir=data_dir)
    places = {
        "file": str(config.file.absolute()) if config.file else None,
        "data_dir": str(config.data_dir),
        "secret": str(config.secret_path) if config.settings.auth.secret is None else None,
        "store": config.shown("store.url"),
    }
    if as_json:
        print_json(places)
        return
    print_table(*[(name, place or "-") for name, place in places.items()])


@app.command()
def env(as_json: AsJson = False) -> None:
    """List the environment variables that set something, and what each sets."""
    names = dict(zip(PLAIN_NAMES, _PLAIN_HELP, strict=True))
    names |= {environment_name(item.setting): item.description for item in setting_fields()}
    if as_json:
        print_json({name: {"description": text, "set": is_set(name)} for name, text in names.items()})
        return
    print_table(*[(name, "set" if is_set(name) else "-", text) for name, text in names.items()])
