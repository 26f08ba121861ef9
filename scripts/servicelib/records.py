"""What was started, written down next to it, so that a later command can end exactly that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from servicelib.processes import began, end, marked

RECORD = "started.json"
OWNER = "owner.json"

# Set to a run's folder for everything that it starts, so that what its command leaves behind can be found.
MARK = "KAMA_SERVICES_RUN"


class Missing(Exception):
    """A service cannot be had here; the text says what was tried and what would help."""


@dataclass(frozen=True)
class Started:
    """A running service: the process (id and beginning) or the container, and the URL it answers at."""

    url: str
    pid: int | None = None
    beginning: str | None = None
    container: str | None = None

    def alive(self) -> bool:
        """Whether it runs: that container, or that process and not another one with its id."""
        if self.container is not None:
            command = ["docker", "inspect", "--format", "{{.State.Running}}", self.container]
            shown = subprocess.run(command, capture_output=True, text=True, check=False)
            return shown.stdout.strip() == "true"
        return self.pid is not None and self.beginning is not None and began(self.pid) == self.beginning

    def write(self, folder: Path) -> Started:
        """Put it on record. At once after the start: from here on `down` can end it."""
        (folder / RECORD).write_text(json.dumps(asdict(self)))
        return self

    def end(self) -> None:
        """End it, and nothing else."""
        if self.container is not None:
            subprocess.run(["docker", "rm", "--force", self.container], capture_output=True, check=False)
        elif self.pid is not None and self.beginning is not None:
            end(self.pid, self.beginning)


def read(folder: Path) -> Started | None:
    """What is on record in a service's folder, running or not."""
    try:
        return Started(**json.loads((folder / RECORD).read_text()))
    except FileNotFoundError:
        return None


def end_all(home: Path) -> list[str]:
    """End every service on record in the folders of `home`, remove these; returns their names."""
    ended = []
    for record in sorted(home.glob(f"*/{RECORD}")):
        started = read(record.parent)
        if started is not None:
            if started.alive():
                ended.append(record.parent.name)
            started.end()
        shutil.rmtree(record.parent)
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
