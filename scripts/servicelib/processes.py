"""Processes: know one again by its id, wait for conditions, end exactly the right ones.

A process id alone is not enough to end something later: the system gives it out again.
So a process is its id together with the moment it began.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

PROC = Path("/proc")


def say(text: str) -> None:
    """Tell a person: never on stdout, which is for a shell to read."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def began(pid: int) -> str | None:
    """When the process began, in the system's own words; None if there is none, or only its remains."""
    if (PROC / "self" / "stat").exists():
        try:
            stat = (PROC / str(pid) / "stat").read_text()
        except OSError:
            return None
        # The name in brackets may hold anything, spaces and brackets too: count from behind it.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else start.strip()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until the condition holds; False when the time is over first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def end(pid: int, beginning: str) -> None:
    """Ask the process to end, then make it; nothing happens to another one that got the same id."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if began(pid) != beginning:
            return
        os.kill(pid, sign)
        if wait_until(lambda: began(pid) != beginning, seconds=5):
            return


def free_port() -> int:
    """A loopback port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def marked(variable: str, value: str) -> Iterator[int]:
    """Every process whose environment holds the variable with that value (Linux; elsewhere none)."""
    wanted = f"{variable}={value}".encode()
    for entry in PROC.glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in environment:
            yield int(entry.name)


def endings() -> list[signal.Signals]:
    """The signals that ask for an end; under nohup a lost terminal is none."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]


def run_to_end(command: Sequence[str], environment: Mapping[str, str], relay: signal.Signals) -> int:
    """Run the command and return its exit code; being told to end, pass that on and still wait.

    Ctrl-C in a terminal reaches the command by itself, so only SIGTERM and SIGHUP are
    passed on, as `relay`; the second one is final.
    """
    child: subprocess.Popen[bytes] | None = None
    asked = 0

    def told(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += number != signal.SIGINT
        if child is not None and number != signal.SIGINT:
            child.send_signal(relay if asked == 1 else signal.SIGKILL)

    before = {sign: signal.signal(sign, told) for sign in (signal.SIGINT, *endings())}
    try:
        child = subprocess.Popen(command, env=dict(environment))
        if asked:  # told between the two lines above
            child.send_signal(relay)
        code = child.wait()
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    return code if code >= 0 else 128 - code
