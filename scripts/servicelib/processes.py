"""Processes: know one again by its id, wait for conditions, end exactly the right ones.

A process id alone is not enough to end something later: the system gives it out again.
So a process is its id together with the moment it began.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

PROC = Path("/proc")

# Below the ports that systems take for outgoing connections: there, a client that keeps trying a stopped
# server can be given that server's port for its own end, and then the server cannot come back.
PORTS = range(20000, 32768)


def say(text: str) -> None:
    """Tell a person: never on stdout, which is for a shell to read."""
    print(f"services: {text}", file=sys.stderr, flush=True)


def began(pid: int) -> str | None:
    """When the process began, in the system's own words; None if there is none, or only its remains."""
    if (PROC / "self" / "stat").exists():
        fields = _stat(pid)
        return None if fields is None or _ended(fields) else fields[19]
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, start = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else start.strip()


def _ended(fields: list[str]) -> bool:
    """Whether only its remains are left: a process whose first thread is gone keeps its files until the last one is.

    Killed on a busy machine, a server of many threads still listens for some milliseconds after it is called a zombie.
    """
    threads = int(fields[17])
    return fields[0] == "X" or (fields[0] == "Z" and threads <= 1)


def _stat(pid: int) -> list[str] | None:
    """What Linux says of a process, from its state on: the parent is next, the beginning is the 20th."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in brackets may hold anything, spaces and brackets too: count from behind it.
    return text.rpartition(")")[2].split()


def family(pid: int) -> list[int]:
    """The process and what it started, and what that started (Linux; elsewhere itself alone)."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:  # grows on the way
        found += children.get(member, [])
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until the condition holds; False when the time is over first."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def send(sign: signal.Signals, pids: Sequence[int]) -> None:
    """Send a signal; who has just ended need not hear it."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sign)


def end(pid: int, beginning: str, sign: signal.Signals = signal.SIGTERM, seconds: float = 5) -> None:
    """Ask the process to end, then make it; nothing happens to another one that got the same id."""
    for asked in (sign, signal.SIGKILL):
        if began(pid) != beginning:
            return
        send(asked, [pid])
        # One that is paused hears nothing else before this.
        send(signal.SIGCONT, family(pid))
        if wait_until(lambda: began(pid) != beginning, seconds):
            return


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on right now."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", random.choice(PORTS)))
                ports.append(probe.getsockname()[1])
    return ports


def connect(port: int) -> socket.socket:
    """A connection to a server of this machine that is expected to answer at once."""
    return socket.create_connection(("127.0.0.1", port), timeout=1)


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly that many bytes."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the server hung up")
        data += part
    return data


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
