"""`kama check`: what a node needs and does not find, in seconds."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

import msgspec
import typer

from kama.commands.common import AsJson, ConfigFile, DataDir, print_json, run, token_keeper
from kama.config import load_config
from kama.errors import ExitCode, KamaError
from kama.text import columns, conceal

_MARKS = {True: "ok", False: "FAILED", None: "note"}


def check(
    mode: Annotated[Literal["channel", "kafka"] | None, typer.Option(help="Check for this mode")] = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Try the settings, the secret, the database, Redis and Kafka. Exit code 1 when something is missing."""
    flags = {} if mode is None else {"node.mode": (mode, "--mode")}
    config = load_config(file=config_file, data_dir=data_dir, flags=flags)
    findings: list[dict[str, Any]] = [_secret(config)]
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # what it has to say is in a finding

    async def call() -> None:
        from kama.server.checkup import check_up

        findings.extend(msgspec.to_builtins(finding) for finding in await check_up(config.settings))

    run(call())
    for finding in findings:
        finding["found"] = conceal(finding["found"])
    if as_json:
        print_json({"ok": all(finding["ok"] is not False for finding in findings), "checks": findings})
    else:
        rows = [(_MARKS[f["ok"]], f["what"], f["found"], f["hint"] or "") for f in findings]
        for line in columns(rows):
            print(line)
    if any(finding["ok"] is False for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def _secret(config: Any) -> dict[str, Any]:
    if config.settings.auth.secret is None and not config.secret_path.exists():
        return {"what": "secret", "ok": None, "found": "none yet: kama serve makes one", "hint": None}
    try:
        token_keeper(config)
    except KamaError as error:
        return {"what": "secret", "ok": False, "found": error.message, "hint": error.hint}
    return {"what": "secret", "ok": True, "found": "usable", "hint": None}
