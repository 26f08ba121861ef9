"""Servers under measurement as processes of their own, and what the kernel says they use."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from kama.server.auth import TokenKeeper
from kama.settings import StoreSettings

SECRET = "a secret of the benchmarks, long enough to sign"
KEEPER = TokenKeeper(SECRET)
_TICKS = os.sysconf("SC_CLK_TCK")
_START = 30.0
_END = 40.0  # kama may drain for 30 s


class ServerFailed(Exception):
    """A server did not start, or did not end by itself."""


class Process:
    """One of this machine, by its `pid`, and what the kernel says it uses."""

    name = ""
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of all its threads."""
        fields = _stat(self.pid)
        if not fields:
            raise ServerFailed(f"{self.name} has ended")
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_kib(self) -> int:
        kib = _resident_kib(self.pid)
        if kib is None:
            raise ServerFailed(f"{self.name} has ended")
        return kib

    def children_cpu_seconds(self) -> float:
        """User and system time of the processes below this one, also of those that it waited for."""
        ended = sum(map(int, _stat(self.pid)[13:15])) / _TICKS
        return ended + sum(sum(map(int, _stat(pid)[11:15])) for pid in descendants(self.pid)) / _TICKS

    def family_resident_kib(self) -> int:
        """Its memory and that of the processes below it; what they share counts once for each."""
        return self.resident_kib() + sum(_resident_kib(pid) or 0 for pid in descendants(self.pid))


def descendants(pid: int) -> list[int]:
    """The processes below this one, as many as there are now."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (stat := _stat(int(folder.name))):
            below.setdefault(int(stat[1]), []).append(int(folder.name))
    found = list(below.get(pid, []))
    for child in found:  # it grows meanwhile
        found += below.get(child, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third, the state, on; none when it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def _resident_kib(pid: int) -> int | None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) if found else None
    return None


class Server(Process):
    """A process in a new temporary folder, from `with` to its end; ended by its pid whatever happens.

    `core`: the only one that it and what it starts may run on; None: any. `protocol`: what it speaks over WebSocket.
    """

    core: int | None = None
    protocol: Literal["plain", "kama", "socket.io"] = "plain"
    url = ""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="kama-benchmark-"))
        self._log_path = self.folder / "server.log"
        try:
            self.prepare()
            with self._log_path.open("w") as log, on_core(self.core):
                # A session of its own: Ctrl-C in the terminal is ours to handle, and __exit__ ends the server.
                self._process = subprocess.Popen(
                    self.command(), env=self.environment(), stdout=log, stderr=log, start_new_session=True
                )
            self.pid = self._process.pid
            self._wait_until_it_listens()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def prepare(self) -> None:
        """Put into its folder what it needs there."""

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Ours without any setting of kama's: who measures may have some for a node of their own."""
        return {name: value for name, value in os.environ.items() if not name.startswith("KAMA_")}

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + _START
        while not (found := re.search(r"listens on (http://\S+)", self._log_path.read_text())):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not start:\n{self._log_path.read_text()}")
            time.sleep(0.02)
        self.url = found[1]

    def stop(self) -> None:
        """End it and wait, so that its data folder is complete and can be read."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_END)
            except subprocess.TimeoutExpired:
                raise ServerFailed(f"{self.name} did not end within {_END:g} s of SIGTERM") from None

    def complaints(self) -> list[str]:
        """Warnings and errors in its log."""
        lines = self._log_path.read_text().splitlines()
        return [line for line in lines if re.search(r"warning|error|Traceback", line, re.IGNORECASE)]

    def __exit__(self, _type: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        with contextlib.suppress(AttributeError, ProcessLookupError):  # it may never have been started
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class BusyNode(Server):
    """A `benchmarks.busy_node`."""

    name = "busy node"

    def __init__(self, connections: int, rate: int) -> None:
        self._load = ["--connections", str(connections), "--rate", str(rate)]

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "benchmarks.busy_node", *self._load]


class KamaServer(Server):
    """A node with the defaults, but without a limit of rates. `synchronous`: "normal", or "full" for acks on disk."""

    name = "kama"
    protocol = "kama"

    def __init__(self, synchronous: str, websocket: str = "auto") -> None:
        self._durability = _durability(synchronous)
        self._websocket = websocket

    @property
    def database(self) -> Path:
        return self.folder / "kama.db"

    def command(self) -> Sequence[str]:
        # An empty file of settings: none of those lying around on this machine is to be found.
        config = self.folder / "none.toml"
        config.touch()
        where = ["--config", str(config), "--data-dir", str(self.folder)]
        return [sys.executable, "-m", "kama", "serve", "--port", "0", *where]

    def environment(self) -> Mapping[str, str]:
        return {
            **super().environment(),
            "KAMA_AUTH__SECRET": SECRET,
            "KAMA_LIMITS__MESSAGES_PER_SECOND": "0",
            "KAMA_LOG__LEVEL": "warning",
            "KAMA_SERVER__WEBSOCKET": self._websocket,
            **self._durability,
            "KAMA_STORE__URL": f"sqlite+aiosqlite:///{self.database}",
        }

    def create_group(self, group_id: str, members: Sequence[str]) -> None:
        body = {"group_id": group_id, "owner_id": members[0], "members": list(members[1:])}
        headers = {"Authorization": f"Bearer {KEEPER.issue('Uadmin', 3600, 'admin')}"}
        request = urllib.request.Request(f"{self.url}/admin/groups", json.dumps(body).encode(), headers)
        no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with no_proxy.open(request, timeout=10) as answer:
            answer.read()


def _durability(synchronous: str) -> dict[str, str]:
    """The setting that says so at this version of kama."""
    if "durability" in StoreSettings.model_fields:
        return {"KAMA_STORE__DURABILITY": "disk" if synchronous == "full" else "process"}
    return {"KAMA_STORE__SYNCHRONOUS": synchronous}


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started within may run on this core only."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit(files: int) -> None:
    """For this process and, since they inherit it, the servers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def machine_cpu_seconds() -> float:
    """What all processes of this machine have used so far, and the kernel for them."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS
