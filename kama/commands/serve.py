"""`kama serve`: run a node."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import sqlite3
from collections.abc import Iterator
from typing import Annotated, Literal

import typer

from kama.address import DEFAULT_SERVER
from kama.commands.common import ConfigFile, DataDir, note, token_keeper
from kama.config import PREFIX, Config, ensure_data_dir, environment_name, load_config
from kama.errors import KamaError, SettingsError

# socket.create_server adds it to what the system said.
_BINDING = " (while attempting to bind"
# What a node and the commands that make tokens for it have to agree on.
_SHARED = ("auth.secret", "auth.algorithm", "auth.issuer")


def serve(
    mode: Annotated[
        Literal["channel", "kafka"] | None, typer.Option(help="One process, or several nodes over Kafka")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="The least that is logged")
    ] = None,
    log_format: Annotated[
        Literal["auto", "text", "json"] | None, typer.Option(help="auto: text on a terminal, else JSON lines")
    ] = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Run a node until Ctrl-C or SIGTERM. Needs no settings at all."""
    typed = {
        "node.mode": (mode, "--mode"),
        "server.host": (host, "--host"),
        "server.port": (port, "--port"),
        "log.level": (log_level, "--log-level"),
        "log.format": (log_format, "--log-format"),
    }
    flags = {setting: (value, flag) for setting, (value, flag) in typed.items() if value is not None}
    config = load_config(file=config_file, data_dir=data_dir, flags=flags)
    keeper = token_keeper(config, make_secret=True)
    _check_database(config)
    from kama.server.node_server import serve as serve_node

    with _explained(config):
        serve_node(config.settings, keeper, lambda url: _announce(config, url))


# --- what can be wrong at the start --------------------------------------------------------------------


def _check_database(config: Config) -> None:
    """A file that is no database is found before anything listens, and told by its name."""
    file = config.database_file
    if file is None:
        return
    if "store.url" not in config.sources:
        ensure_data_dir(config)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA schema_version")
        if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
            raise PermissionError(None, "it or its folder cannot be written to")
    except sqlite3.OperationalError as error:
        # Another process that is busy with it says nothing about the file: the node waits for its turn.
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise _cannot_open(config, file, error) from None
    except (sqlite3.Error, OSError) as error:
        raise _cannot_open(config, file, error) from None


def _cannot_open(config: Config, database: object, error: Exception) -> KamaError:
    reason = getattr(error, "strerror", None) or str(getattr(error, "orig", None) or error)
    return KamaError(
        f"store.url ({config.source('store.url')}): cannot open the database {database}: {reason}",
        field="store.url",
        hint="mend it or move it away, or name another place: --data-dir DIR, or store.url",
    )


@contextlib.contextmanager
def _explained(config: Config) -> Iterator[None]:
    """What a node raises when it cannot start, in the words of the settings."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except BrokenPipeError:
        raise  # nobody reads what we print: no failure of the node's
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"store.url ({config.source('store.url')}): expected the package {error.name} for this database, got none",
            field="store.url",
            hint=f"pip install {error.name}",
        ) from error
    except OSError as error:
        if _BINDING in str(error):
            raise _cannot_listen(config, error) from error
        raise _cannot_open(config, config.shown("store.url"), error) from error
    except SQLAlchemyError as error:
        raise _cannot_open(config, config.shown("store.url"), error) from error


def _cannot_listen(config: Config, error: OSError) -> KamaError:
    server = config.settings.server
    reason = (error.strerror or str(error)).partition(_BINDING)[0]
    about_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
    return KamaError(
        f"cannot listen on {server.host} port {server.port}: {reason}",
        hint=f"take another {'port: kama serve --port 0' if about_port else 'address: kama serve --host 127.0.0.1'}",
    )


# --- what is told once it listens ----------------------------------------------------------------------


def _announce(config: Config, url: str) -> None:
    settings = config.settings
    secret = f"auth.secret ({config.source('auth.secret')})" if settings.auth.secret else config.secret_path
    from_environment = [name for name in _SHARED if config.source(name).startswith(PREFIX)]
    also = f", where {', '.join(map(environment_name, from_environment))} is set too" if from_environment else ""
    note(f"kama listens on {url} in {settings.node.mode} mode (Ctrl-C ends it)")
    note(f"  data    {config.database_file or config.shown('store.url')}")
    note(f"  secret  {secret}")
    note(f"try next, in another terminal{also}:")
    note(f"  kama token U123456{_same_settings(config)}")
    note(f"  kama send hello --from U123456 --to U654321{_same_node(url)}{_same_settings(config)}")


def _same_node(url: str) -> str:
    """The option that leads a command to this node; an address that stands for all of them is none to go to."""
    reachable = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    return "" if reachable == DEFAULT_SERVER else f" -s {shlex.quote(reachable)}"


def _same_settings(config: Config) -> str:
    """The options that lead a command, in any folder and without our variables, to this node's secret."""
    options: list[str] = []
    if config.file is not None:
        options += ["--config", str(config.file.absolute())]
    if "data_dir" in config.sources:
        options += ["--data-dir", str(config.data_dir)]
    return f" {shlex.join(options)}" if options else ""
