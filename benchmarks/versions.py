"""`python -m benchmarks.versions HEAD~1 .`: what a message costs one version of kama, and what another.

All versions relay at the same time, on the same core, so that whatever else happens on the machine happens to all of
them: the CPU time a message of one version twice differs by 1 or 2 %, where that of one run after the other may double.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks import relay
from benchmarks.check import check_store
from benchmarks.client import Failed, in_loop
from benchmarks.load import Figures, Timing
from benchmarks.servers import KamaServer, ServerFailed, raise_file_limit

_ROOT = Path(__file__).resolve().parent.parent
_HERE = "."


class Version(KamaServer):
    """A node of a revision, whose code is in the folder `code`."""

    def __init__(self, revision: str, code: Path) -> None:
        super().__init__("normal")
        self.name = revision
        self._code = code

    def command(self) -> Sequence[str]:
        python, *rest = super().command()
        return [python, "-P", *rest]  # not the code of the folder in which this was started

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "PYTHONPATH": str(self._code)}


def check_out(revision: str, folder: Path) -> Path:
    """The folder that holds `kama` as it was. Raises Failed for what is no revision."""
    if revision == _HERE:
        return _ROOT
    done = subprocess.run(["git", "archive", revision, "kama"], cwd=_ROOT, capture_output=True, check=False)
    if done.returncode:
        raise Failed(
            f"expected a revision of this repository or {_HERE}, got {revision}: {done.stderr.decode().strip()}"
        )
    code = folder / revision.replace("/", "_")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(code, filter="data")
    return code


def measure(versions: Sequence[Version], timing: Timing, pairs: int) -> list[Figures]:
    """One round. Raises Failed and ServerFailed."""

    async def run() -> list[tuple[Figures, relay.Sent]]:
        return await asyncio.gather(*(relay.run(version, timing, pairs) for version in versions))

    with contextlib.ExitStack() as running:
        for version in versions:
            running.enter_context(version)
        results = in_loop(run)
        for version, (_, sent) in zip(versions, results, strict=True):
            version.stop()
            check_store(version.database, sent, 0)
    return [figures for figures, _ in results]


def table(versions: Sequence[Version], rounds: Sequence[Sequence[Figures]]) -> str:
    """Microseconds a message; the ratio is that of all CPU time, to the first version in the same round."""
    width = max(len(version.name) for version in versions)
    lines = [f"{'version':{width}}  server us  children us  x the first"]
    for place, version in enumerate(versions):
        mine = [figures[place] for figures in rounds]
        ratios = [_all_us(figures[place]) / _all_us(figures[0]) for figures in rounds]
        server, children = (median(figures[name] for figures in mine) for name in ("server_us", "children_us"))
        spread = f"{median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        lines.append(f"{version.name:{width}}  {server:9.1f}  {children:11.1f}  {spread}")
    return "\n".join(lines)


def _all_us(figures: Figures) -> float:
    return figures["server_us"] + figures["children_us"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument(
        "revisions", nargs="+", help=f"of git, or {_HERE} for the code as it is; the first is compared with"
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured in each round")
    parser.add_argument("--pairs", type=int, default=200)
    options = parser.parse_args()
    raise_file_limit(2 * options.pairs * len(options.revisions) + 1000)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    try:
        with tempfile.TemporaryDirectory(prefix="kama-versions-") as folder:
            versions = [Version(revision, check_out(revision, Path(folder))) for revision in options.revisions]
            for version in versions:
                version.core = cores[0]
            timing = Timing(1.5, options.seconds)
            rounds = [measure(versions, timing, options.pairs) for _ in range(options.rounds)]
    except (Failed, ServerFailed) as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 1
    print(table(versions, rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
