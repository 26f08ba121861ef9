"""MonitorOptions: what `kama monitor` was asked for, read and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kama.monitor_protocol import INTERVAL_MS_MIN

Theme = Literal["auto", "dark", "light", "ansi", "mono"]


@dataclass(frozen=True, slots=True)
class MonitorOptions:
    """`token` is asked before each try to connect; it raises SettingsError or Unauthorised when there is none.

    `token_note` says in words whose token it is, where that is not plain. `replay`: a recording to show instead of
    `servers`. `filter` is for clients and events, `speed` for a replay. `ascii`: for a terminal
    that shows nothing else.
    """

    servers: tuple[str, ...]
    token: Callable[[], str]
    token_note: str = ""
    follow_all: bool = False
    interval_ms: int = INTERVAL_MS_MIN
    read_only: bool = False
    record: Path | None = None
    redact: bool = False
    replay: Path | None = None
    speed: float = 1.0
    theme: Theme = "auto"
    ascii: bool = False
    filter: str = ""
