"""`kama monitor --web`: the dashboard in a browser, for this machine and its own page alone."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2
import pytest
from command_line import Kama
from support import SECRET
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from kama.errors import ExitCode

HAS_EXTRA = importlib.util.find_spec("textual_serve") is not None
with_extra = pytest.mark.skipif(not HAS_EXTRA, reason="needs the extra kama[web]")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def page() -> Iterator[str]:
    """The URL at which `kama monitor --web` waits for browsers; the node that it would watch does not exist."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "kama", "monitor", "-s", "http://127.0.0.1:1", "--web", "--web-port", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "KAMA_AUTH__SECRET": SECRET},
    )  # fmt: skip
    deadline = time.monotonic() + 30
    url = f"http://127.0.0.1:{port}"
    while True:
        assert time.monotonic() < deadline and process.poll() is None
        try:
            httpx2.get(url, trust_env=False)
            break
        except httpx2.ConnectError:
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(20)


@with_extra
@pytest.mark.heavy
def test_a_browser_is_shown_the_dashboard(page: str) -> None:
    with connect(f"ws{page.removeprefix('http')}/ws", origin=page, proxy=None) as tab:  # type: ignore[arg-type]
        drawn = b""
        while b"No kama node at" not in drawn:
            data = tab.recv(timeout=30)
            drawn += data if isinstance(data, bytes) else data.encode()


@with_extra
@pytest.mark.heavy
@pytest.mark.parametrize("origin", [None, "http://evil.example", "http://localhost:1"])
def test_no_other_page_is(page: str, origin: str | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws{page.removeprefix('http')}/ws", origin=origin, proxy=None)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403


@pytest.mark.skipif(HAS_EXTRA, reason="the extra kama[web] is there")
def test_without_the_extra_it_says_how_to_get_it(kama: Kama) -> None:
    done = kama("monitor", "--web")
    assert done.code == ExitCode.USAGE and "pip install 'kama[web]'" in done.err
