"""Two versions of kama beside each other: what is told is of both, and of what was asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.load import Figures
from benchmarks.versions import Version, table

ROOT = Path(__file__).resolve().parents[2]


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.versions", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


def figures(server: float, children: float) -> Figures:
    return {"server_us": server, "children_us": children}


def test_versions_relay_at_the_same_time_and_each_has_a_line() -> None:
    done = compare("HEAD", ".", "--rounds", "1", "--seconds", "0.3", "--pairs", "4")
    assert done.returncode == 0, done.stderr
    head, first, second = done.stdout.splitlines()
    assert head.split()[0] == "version"
    assert first.split()[0] == "HEAD" and first.endswith("1.000 (1.000-1.000)")
    assert second.split()[0] == "." and float(second.split()[1]) > 0


def test_what_is_no_revision_is_told() -> None:
    done = compare("nonsense")
    assert (done.returncode, done.stdout) == (1, "")
    assert "expected a revision of this repository or ., got nonsense" in done.stderr


def test_the_ratio_is_of_all_that_a_message_costs_in_the_same_round() -> None:
    versions = [Version(name, ROOT) for name in ("old", "new")]
    rounds = [[figures(80, 20), figures(50, 20)], [figures(160, 40), figures(130, 30)], [figures(9, 1), figures(9, 0)]]
    last = table(versions, rounds).splitlines()[-1]
    assert last.split()[1:] == ["50.0", "20.0", "0.800", "(0.700-0.900)"]
