"""What starting has in common for all servers: try, wait until ready, try again elsewhere, start again in place."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from servicelib.processes import began, wait_until
from servicelib.records import Launch, Missing, Started

ATTEMPTS = 3
LOG = "log"

Ready = Callable[[Started], bool]


def new_folder(folder: Path) -> Path:
    """The server's folder, with nothing of an earlier one in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def launch(folder: Path, how: Launch, started: Started, before: int | None = None) -> Started:
    """Start the process in the background, its output in the folder's log, and put it on record.

    Started again, it may have to know which process was there before it.
    """
    known = {how.predecessor: str(before)} if how.predecessor and before else {}
    with (folder / LOG).open("ab") as log:
        # A session of its own: a Ctrl-C in this terminal is for the tests, a server must outlive them.
        process = subprocess.Popen(
            how.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=how.cwd,
            env={**os.environ, **known},
            start_new_session=True,
            **as_user(how.user),
        )
    return replace(started, pid=process.pid, beginning=began(process.pid), launch=how).write(folder)


def as_user(name: str | None) -> dict[str, Any]:
    """The arguments of subprocess that give up this user's rights for those of another; None: they stay."""
    return {} if name is None else {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def bring_up(home: Path, attempt: Callable[[], Mapping[str, Started]], ready: Ready, seconds: float) -> list[Started]:
    """Start servers that belong together and wait until all are ready.

    Their ports are free when we look, and may be somebody else's when they take them: then look again.
    """
    words = ""
    for _ in range(ATTEMPTS):
        members = attempt()
        if _come_up(list(members.values()), ready, seconds):
            return list(members.values())
        words = "; ".join(f"{name}: {last_words(home / name)}" for name, one in members.items() if not one.alive())
        for name, started in members.items():
            started.end()
            (home / name / "started.json").unlink(missing_ok=True)
    raise Missing(f"it did not come up in {ATTEMPTS} attempts ({words or f'not ready within {seconds:g} s'})")


def _come_up(members: list[Started], ready: Ready, seconds: float) -> bool:
    def decided() -> bool:
        return all(ready(one) for one in members) or not all(one.alive() for one in members)

    # What answers there may be somebody else, while ours has ended for want of the port.
    return wait_until(decided, seconds) and all(one.alive() for one in members)


def again(home: Path, members: Mapping[str, Started], ready: Ready, seconds: float) -> None:
    """Start those that have ended again, each on its port with its data, and wait until all are ready.

    All at the same time, as none of them may be ready without the others.
    """
    before = {name: one.pid for name, one in members.items()}
    for _ in range(ATTEMPTS):
        members = {
            name: one if one.alive() else _relaunch(home / name, one, before[name]) for name, one in members.items()
        }
        if _come_up(list(members.values()), ready, seconds):
            return
        # Killed a moment ago, it may have left a process that is still letting go of the data: try once more.
        ended = [name for name, one in members.items() if not one.alive()]
        if not ended:
            raise Missing(f"{', '.join(members)}: not ready within {seconds:g} s after the restart")
    words = "; ".join(f"{name} on port {members[name].port}: {last_words(home / name)}" for name in ended)
    raise Missing(f"it did not come back ({words}); `down` forgets it")


def _relaunch(folder: Path, started: Started, before: int | None) -> Started:
    if started.container is not None:
        subprocess.run(["docker", "start", started.container], capture_output=True, check=False)
        return started
    return started if started.launch is None else launch(folder, started.launch, started, before)


def last_words(folder: Path) -> str:
    """The end of the server's log."""
    log = folder / LOG
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"
