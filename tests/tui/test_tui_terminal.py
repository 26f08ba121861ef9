"""The terminal is whole again however the dashboard ends; and it lives through the death of the node."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import SECRET, NodeProcess

pytestmark = pytest.mark.heavy

# What the dashboard switched on, and what switches it off: the other screen, the mouse, and the hidden cursor.
SWITCHES = ((b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?1000h", b"\x1b[?1000l"), (b"\x1b[?25l", b"\x1b[?25h"))
# From the death of the node until it is said, and from its return, which takes a while itself, until it is seen.
SHOWN_S, LIVE_AGAIN_S = 3.0, 20.0
CRASH = """
import sys
from kama.tui.app import MonitorApp
MonitorApp.tick = lambda self: 1 / 0
from kama.cli import main
sys.argv[0] = "kama"
main()
"""


class Terminal:
    """A command on a terminal of its own; `output` is all that came so far."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.output = b""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=folder,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm-256color", "KAMA_AUTH__SECRET": SECRET, "TEXTUAL_ANIMATIONS": "none"},
        )  # fmt: skip
        os.close(slave)

    def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.output[-3000:]
            self._read()

    def shows(self, text: str) -> Callable[[], bool]:
        """Whether it was drawn since now."""
        begin = len(self.output)
        return lambda: text.encode() in self.output[begin:]

    def ended(self) -> bool:
        return self.process.poll() is not None

    def _read(self) -> None:
        ready, _, _ = select.select([self.master], [], [], 0.05)
        with contextlib.suppress(OSError):  # the other side has ended
            if ready:
                self.output += os.read(self.master, 65536)

    def drain(self) -> None:
        for _ in range(20):
            self._read()

    def close(self) -> None:
        if not self.ended():
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        opened.append(Terminal([sys.executable, *arguments], tmp_path))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def assert_whole(output: bytes) -> None:
    for on, off in SWITCHES:
        assert on in output and output.rindex(on) < output.rindex(off)


@pytest.mark.parametrize("how", ["q", "ctrl-c", "SIGTERM"])
def test_the_terminal_is_whole_after_an_end(open_terminal: Callable[..., Terminal], how: str) -> None:
    terminal = open_terminal("-m", "kama", "monitor", "-s", "http://127.0.0.1:1")
    terminal.until(terminal.shows("No kama node at"))
    if how == "SIGTERM":
        terminal.process.send_signal(signal.SIGTERM)
    else:
        os.write(terminal.master, b"q" if how == "q" else b"\x03")
    terminal.until(terminal.ended)
    terminal.drain()
    assert_whole(terminal.output)


def test_the_terminal_is_whole_after_a_crash(open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("-c", CRASH, "monitor", "-s", "http://127.0.0.1:1")
    terminal.until(terminal.ended)
    terminal.drain()
    assert_whole(terminal.output)
    assert b"ZeroDivisionError" in terminal.output
    assert terminal.process.returncode == 1


def test_it_lives_through_the_death_of_the_node(open_terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        terminal = open_terminal("-m", "kama", "monitor", "-s", node.url)
        terminal.until(terminal.shows("LIVE"))
        stale = terminal.shows("STALE")
        gone = terminal.shows("GONE")
        node.kill()
        terminal.until(lambda: stale() or gone(), SHOWN_S)
        live = terminal.shows("LIVE")
        node.start()
        terminal.until(live, LIVE_AGAIN_S)
        assert not terminal.ended()
        os.write(terminal.master, b"q")
        terminal.until(terminal.ended)
    assert terminal.process.returncode == 0
