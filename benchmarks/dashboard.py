"""`kama monitor` as a process on a terminal of its own, and what it uses."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from types import TracebackType
from typing import Self

from benchmarks.servers import SECRET, Process, ServerFailed

_START = 30.0
_KEPT = 65_536
# What the status line says from the first frame on, and once the node's numbers are shown.
_PAINTED = (b"CONNECTING", b"LIVE")
_LIVE = b"LIVE"


class Dashboard(Process):
    """From `with` to its end. `written` bytes came so far; seconds from its start to the first frame and to LIVE."""

    name = "kama monitor"

    def __init__(self, url: str, columns: int, rows: int) -> None:
        self._command = [sys.executable, "-m", "kama", "monitor", "-s", url]
        self._size = struct.pack("HHHH", rows, columns, 0, 0)
        self.written = 0
        self.painted_s: float | None = None
        self.live_s: float | None = None

    def __enter__(self) -> Self:
        self._terminal, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, self._size)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAMA_")}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "KAMA_AUTH__SECRET": SECRET}
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            self._command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True
        )
        os.close(other)
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, name="terminal")
        self._reader.start()
        return self

    def _read(self) -> None:
        """As a terminal does: take everything, at once."""
        seen = b""
        with contextlib.suppress(OSError):  # the dashboard has ended
            while data := os.read(self._terminal, _KEPT):
                now = time.monotonic() - self._started
                self.written += len(data)
                if self.live_s is None:
                    seen = (seen + data)[-_KEPT:]
                    if self.painted_s is None and any(word in seen for word in _PAINTED):
                        self.painted_s = now
                    if _LIVE in seen:
                        self.live_s = now

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started

    def wait_until_live(self) -> float:
        """Seconds from the start to the first frame with the node's numbers. Raises ServerFailed."""
        while self.live_s is None:
            if self._process.poll() is not None or time.monotonic() > self._started + _START:
                raise ServerFailed(f"{self.name} did not show LIVE within {_START:g} s")
            time.sleep(0.02)
        return self.live_s

    def __exit__(self, _type: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._terminal)
