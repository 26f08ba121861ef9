"""What the tests of commands share: `kama` runs one as the terminal would, `live` is a node that it can talk to."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Kama, Outcome
from support import SECRET, NodeProcess

from kama import cli


@pytest.fixture
def kama(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kama:
    """`kama("token", "U1", stdin="…")`, in an empty folder. It blocks: beside an event loop, call it in a thread."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | bytes = "") -> Outcome:
        given = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given, encoding="utf-8"))
        code = cli.run(arguments)
        written = capsys.readouterr()
        return Outcome(int(code), written.out, written.err)

    return run


@pytest.fixture(scope="module")
def node_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("node")) as process:
        yield process


@pytest.fixture
def live(node_process: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> NodeProcess:
    """A node that commands find without options: one for all tests of a file, so each takes users of its own."""
    monkeypatch.setenv("KAMA_SERVER", node_process.url)
    monkeypatch.setenv("KAMA_AUTH__SECRET", SECRET)
    return node_process


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """A secret without a node."""
    monkeypatch.setenv("KAMA_AUTH__SECRET", SECRET)
    return SECRET
