"""`kama serve`: run a node."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kama.commands.common import ConfigFile, DataDir, note, token_keeper
from kama.config import DEFAULT_SERVER, Config, load_config
from kama.errors import KamaError, SettingsError


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
        "node.mode": mode,
        "server.host": host,
        "server.port": port,
        "log.level": log_level,
        "log.format": log_format,
    }
    flags = {name: value for name, value in typed.items() if value is not None}
    config = load_config(file=config_file, data_dir=data_dir, flags=flags)
    if config.settings.node.mode == "kafka":
        raise SettingsError("kafka mode is not built yet", field="node.mode", hint="kama serve --mode channel")
    keeper = token_keeper(config, make_secret=True)
    from kama.server.app import serve as serve_node

    try:
        serve_node(config.settings, keeper, lambda url: _announce(config, url))
    except OSError as error:
        server = config.settings.server
        raise KamaError(
            f"cannot listen on {server.host} port {server.port}: {error.strerror or error}",
            hint="take another one: kama serve --port 0",
        ) from error


def _announce(config: Config, url: str) -> None:
    settings = config.settings
    secret = "auth.secret" if settings.auth.secret else str(config.secret_path)
    where = "" if url == DEFAULT_SERVER else f" -s {url}"
    note(f"kama listens on {url} in {settings.node.mode} mode (Ctrl-C ends it)")
    note(f"  data    {config.shown('store.url')}")
    note(f"  secret  {secret}")
    note("try next, in another terminal:")
    note("  kama token U123456")
    note(f"  kama send hello --from U123456 --to U654321{where}")
