"""Ways to get a program: the PATH, the distribution's packages, a container engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servicelib.processes import say
from servicelib.records import Missing

# Packages install here, whatever the PATH of this run says.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLICY = Path("/usr/sbin/policy-rc.d")


def program(name: str, package: str) -> str | None:
    """The program's path: from the PATH, else installed with apt-get where we may; None if neither works."""
    return shutil.which(name) or (shutil.which(name, path=SYSTEM_PATH) if _apt_install(package) else None)


def docker_answers() -> bool:
    """Whether there is a Docker client and an engine behind it."""
    return shutil.which("docker") is not None and _quiet("docker", "info", seconds=20) is None


def docker_run(image: str, publish: str, *command: str) -> str:
    """Run the image in the background with one port published; returns the container's id."""
    words = ["docker", "run", "--detach", "--publish", publish, image, *command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as late:
        raise Missing(f"docker did not start {image} within {late.timeout:g} s") from late
    if done.returncode != 0:
        raise Missing(f"docker could not run {image}: {done.stderr.strip()}")
    return done.stdout.strip()


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
        if _quiet(*install) is None:
            return True
        failure = _quiet("apt-get", "update") or _quiet(*install)
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


def _quiet(*command: str, seconds: float = 300) -> str | None:
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
