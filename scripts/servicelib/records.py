"""What was started, written down next to it, so that a later command can end, pause or restart exactly that.

A server's folder is named after it (`redis`, `kafka-2`); its record is `started.json` in there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from servicelib.processes import began, end, family, marked, send

RECORD = "started.json"
OWNER = "owner.json"

# Set to a run's folder for everything that it starts, so that what its command leaves behind can be found.
MARK = "KAMA_SERVICES_RUN"


class Missing(Exception):
    """A service cannot be had here; the text says what was tried and what would help."""


@dataclass(frozen=True)
class Launch:
    """How a server's process is started, the first time and again: the same port, the same data."""

    command: tuple[str, ...]
    cwd: str
    user: str | None = None
    # By name: the signal for an orderly stop, and the one for when its data goes as well.
    stop: str = "SIGTERM"
    discard: str = "SIGTERM"
    # The variable that tells it, started again, the id of the process before it.
    predecessor: str | None = None


@dataclass(frozen=True)
class Started:
    """A running server: the process (id and beginning) or the container, and the URL it answers at."""

    url: str
    port: int = 0
    pid: int | None = None
    beginning: str | None = None
    container: str | None = None
    launch: Launch | None = None
    # A folder elsewhere that goes when the server does.
    scratch: str | None = None

    def complete(self) -> bool:
        """Whether it got as far as being started; if it ended since, it can be started again."""
        return self.container is not None or self.launch is not None

    def alive(self) -> bool:
        """Whether it runs: that container, or that process and not another one with its id."""
        if self.container is not None:
            return _docker("inspect", "--format", "{{.State.Running}}", self.container) == "true"
        return self.pid is not None and self.beginning is not None and began(self.pid) == self.beginning

    def write(self, folder: Path) -> Started:
        """Put it on record. At once after the start: from here on `down` can end it."""
        # In one step, as others may be reading it; for this user's eyes, as a URL may hold a password.
        draft = folder / f"{RECORD}.new"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=1)
        draft.replace(folder / RECORD)
        return self

    def end(self) -> None:
        """End it with its data, and nothing else."""
        if self.container is not None:
            _docker("rm", "--force", "--volumes", self.container)
        elif self.pid is not None and self.beginning is not None:
            end(self.pid, self.beginning, signal.Signals[self.launch.discard if self.launch else "SIGTERM"])
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def stop(self) -> None:
        """End it in an orderly way, to be started again with its data."""
        if self.container is not None:
            _docker("stop", self.container)
        elif self.pid is not None and self.beginning is not None:
            # A broker hands over its partitions first, a database writes down what it holds.
            end(self.pid, self.beginning, signal.Signals[self.launch.stop if self.launch else "SIGTERM"], seconds=30)

    def signal(self, sign: signal.Signals) -> None:
        """Send a signal to all of its processes, if it is still there."""
        if self.container is not None:
            # An engine pauses with something stronger than the signals, which the first process may ignore.
            paused = {signal.SIGSTOP: ["pause"], signal.SIGCONT: ["unpause"]}
            _docker(*paused.get(sign, ["kill", "--signal", sign.name]), self.container)
        elif self.pid is not None and self.alive():
            send(sign, family(self.pid))


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout.strip()


def read(folder: Path) -> Started | None:
    """What is on record in a server's folder, running or not."""
    try:
        found = json.loads((folder / RECORD).read_text())
    except FileNotFoundError:
        return None
    launch = found.pop("launch", None)
    if launch is not None:
        launch = Launch(**{**launch, "command": tuple(launch["command"])})
    return Started(**found, launch=launch)


def servers(home: Path) -> dict[str, Started]:
    """Every server on record in the folders of `home`, by its name."""
    found = ((record.parent.name, read(record.parent)) for record in sorted(home.glob(f"*/{RECORD}")))
    return {name: started for name, started in found if started is not None}


def end_all(home: Path) -> list[str]:
    """End every server on record in the folders of `home`, remove these; returns their names."""
    ended = []
    for name, started in servers(home).items():
        if started.alive():
            ended.append(name)
        started.end()
        shutil.rmtree(home / name)
    return ended


def claim(run: Path) -> None:
    """Write down that the folder of a run is this process's own."""
    owner = {"pid": os.getpid(), "beginning": began(os.getpid())}
    (run / OWNER).write_text(json.dumps(owner))


def end_abandoned(home: Path) -> None:
    """End what runs left behind that were killed before they could tidy up."""
    for owner_file in home.glob(f"run-*/{OWNER}"):
        try:
            owner = json.loads(owner_file.read_text())
        except (FileNotFoundError, ValueError):  # being made or removed at this very moment
            continue
        if began(owner["pid"]) != owner["beginning"]:
            end_all(owner_file.parent)
            for pid in marked(MARK, owner_file.parent.name):
                end(pid, began(pid) or "")
            shutil.rmtree(owner_file.parent, ignore_errors=True)
