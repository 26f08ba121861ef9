"""One node per SQLite file: two would take each other's seqs for gaps and hand out the same message ids."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from kama.errors import SettingsError


def hold(database: Path) -> IO[str] | None:
    """Takes the file for this process, until what is returned is closed or the process ends, however it ends.

    Raises SettingsError when another process has it. Where the system has no such locks: None.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    lock = database.with_name(f"{database.name}.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read(20).strip()
        lock.close()
        raise SettingsError(
            f"another node{f' (process {owner})' if owner else ''} has the database {database}",
            field="store.url",
            hint="end it, or give this one a folder of its own: --data-dir DIR",
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
