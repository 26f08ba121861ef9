"""Ways to get a program: the PATH, the distribution's packages, a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from glob import glob
from pathlib import Path

from servicelib.processes import say
from servicelib.records import Missing, Started

# Packages install here, whatever the PATH of this run says.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLICY = Path("/usr/sbin/policy-rc.d")


def program(name: str, *packages: str, elsewhere: str = "") -> str | None:
    """The program's path: from the PATH, else installed with apt-get where we may; None if neither works.

    The first package that can be had is taken; `elsewhere` is a pattern of paths, of which the last counts.
    """
    found = shutil.which(name) or _newest(elsewhere)
    if found is None and any(_apt_install(package) for package in packages):
        found = shutil.which(name, path=SYSTEM_PATH) or _newest(elsewhere)
    return found


def _newest(pattern: str) -> str | None:
    def versions(path: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path)]

    return max(glob(pattern), key=versions, default=None)


def docker_answers() -> bool:
    """Whether there is a Docker client and an engine behind it."""
    return shutil.which("docker") is not None and quiet("docker", "info", seconds=20) is None


def docker_run(
    folder: Path, started: Started, image: str, ports: str, *command: str, environment: Mapping[str, str] | None = None
) -> Started:
    """Run the image in the background with one port published on loopback, and put it on record."""
    words = ["docker", "run", "--detach", "--publish", f"127.0.0.1:{ports}"]
    for name, value in (environment or {}).items():
        words += ["--env", f"{name}={value}"]
    try:
        done = subprocess.run([*words, image, *command], capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as late:
        raise Missing(f"docker did not start {image} within {late.timeout:g} s") from late
    if done.returncode != 0:
        raise Missing(f"docker could not run {image}: {done.stderr.strip()}")
    return replace(started, container=done.stdout.strip()).write(folder)


def _apt_install(package: str) -> bool:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    say(f"installing {package} with apt-get")
    install = [
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=120",
        "install",
        "-y",
        "--no-install-recommends",
        package,
    ]
    with _no_daemon_starts():
        # A fresh container has no package lists yet: then the first try fails at once, and fetching helps.
        if quiet(*install) is None:
            return True
        failure = quiet("apt-get", "update") or quiet(*install)
    if failure is not None:
        say(f"apt-get could not install {package}: {failure}")
    return failure is None


@contextmanager
def _no_daemon_starts() -> Iterator[None]:
    """Keep the distribution from running its own copy of the server that is being installed."""
    if POLICY.exists():  # somebody else's rule, mostly a container's "never": it stays
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def quiet(*command: str, seconds: float = 300) -> str | None:
    """Run the command without a terminal; None if it worked, else the last thing it said."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {seconds:g} s"
    if done.returncode == 0:
        return None
    return (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
