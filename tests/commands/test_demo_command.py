"""`kama demo`: something happens at once, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from command_line import Kama

from kama.errors import ExitCode

pytestmark = pytest.mark.heavy


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "kama", "demo", "--headless", "--users", "6", "--rate", "20"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    yield process
    process.terminate()  # killed, it would leave its node
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def accepted(url: str) -> float:
    metrics = httpx2.get(f"{url}/metrics", trust_env=False).text
    lines = [line.split() for line in metrics.splitlines() if line.startswith("kama_messages_accepted_total")]
    return sum(float(line[-1]) for line in lines)


def test_people_chat_until_it_is_told_to_end(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    assert demo.stdout is not None
    url = demo.stdout.readline().strip()
    deadline = time.monotonic() + 30
    while accepted(url) < 5:
        assert time.monotonic() < deadline and demo.poll() is None
        time.sleep(0.1)
    demo.send_signal(signal.SIGTERM)
    assert demo.wait(20) == ExitCode.INTERRUPTED
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url, trust_env=False)
    assert list(tmp_path.glob("kama-demo-*")) == []


def test_the_others_go_on_when_one_of_the_people_is_kicked(
    demo: subprocess.Popen[str], kama: Kama, tmp_path: Path
) -> None:
    assert demo.stdout is not None
    url = demo.stdout.readline().strip()
    (folder,) = tmp_path.glob("kama-demo-*")
    deadline = time.monotonic() + 30
    # The last of them stays logged in all the time.
    while "closed 1 connection" not in kama("kick", "Udemo006", "-s", url, "--data-dir", str(folder)).err:
        assert time.monotonic() < deadline and demo.poll() is None
        time.sleep(0.1)
    said = accepted(url)
    while accepted(url) < said + 20:
        assert time.monotonic() < deadline and demo.poll() is None
        time.sleep(0.1)


def test_it_ends_after_the_time_that_was_given(kama: Kama) -> None:
    done = kama("demo", "--headless", "--users", "2", "--for", "1s")
    assert done.code == ExitCode.OK and done.out.startswith("http://127.0.0.1:")


def test_without_a_terminal_it_says_what_to_do(kama: Kama) -> None:
    done = kama("demo")
    assert done.code == ExitCode.USAGE and "kama demo --headless" in done.err
