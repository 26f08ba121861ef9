"""What a run was made with: the machine, the versions of everything, and how much of what."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks import full
from benchmarks.client import MESSAGE_BYTES
from benchmarks.contestants import versions
from benchmarks.servers import Server

_OURS = ("kama", "starlette", "uvicorn", "websockets", "picows", "uvloop", "httptools", "msgspec")


def conditions(options: argparse.Namespace, servers: Sequence[Server], cores: Sequence[int]) -> dict[str, Any]:
    ours = ", ".join(f"{name} {_version(name)}" for name in _OURS)
    theirs = ", ".join(f"{name} {found}" for name, found in versions(servers).items())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, {len(cores)} cores",
        "load before": round(os.getloadavg()[0], 2),
        "cores": f"servers and what they start: {cores[0]}; client: {cores[-1]}",
        "kama": f"python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {ours}",
        "peers": theirs or "none",
        "rounds": f"{options.rounds} of {options.warm_up:g} s warm-up and {options.seconds:g} s, servers in turn",
        "pairs": f"{options.pairs}, one message under way in each, {MESSAGE_BYTES} bytes",
        "group": f"{options.members} members, {options.group_window} messages under way",
        "idle connections": options.connections,
        "full store": f"{full.CONVERSATIONS * full.MESSAGES_EACH:,} messages, {full.CONVERSATIONS:,} conversations",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
