"""What the peers run on: Node.js packages and a Python venv in this folder, installed on their first use."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
NODE_FOLDER = FOLDER / "node"
_VENV = FOLDER / ".venv"
_REQUIREMENTS = FOLDER / "requirements.txt"
_PATIENCE = 600.0


class NotHere(Exception):
    """This machine lacks what a peer runs on; the text is for its row of the table."""


def node() -> str:
    """The path of Node.js, its packages installed. Raises NotHere."""
    program = _program("node")
    modules = NODE_FOLDER / "node_modules"
    if not _is_fresh(modules, NODE_FOLDER / "package.json"):
        npm = _program("npm")
        # No lock file: it would name the hosts that this machine installs from.
        quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        _run([npm, "install", *quiet], NODE_FOLDER)
        _mark(modules, NODE_FOLDER / "package.json")
    return program


def python() -> str:
    """The path of the Python of a venv with the peers' packages. Raises NotHere."""
    program = _VENV / "bin" / "python"
    if not _is_fresh(_VENV, _REQUIREMENTS):
        _run([sys.executable, "-m", "venv", "--clear", str(_VENV)], FOLDER)
        pip = [str(program), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        _run([*pip, "-r", str(_REQUIREMENTS)], FOLDER)
        _mark(_VENV, _REQUIREMENTS)
    return str(program)


def python_if_installed() -> str | None:
    """As `python`, but nothing is installed: None where it would have to be."""
    return str(_VENV / "bin" / "python") if _is_fresh(_VENV, _REQUIREMENTS) else None


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotHere(f"{name} is missing")
    return found


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise NotHere(f"{command[0]} did not end within {_PATIENCE:g} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotHere(f"{Path(command[0]).name} failed: {said[-1] if said else f'exit code {done.returncode}'}")


def _is_fresh(folder: Path, listed: Path) -> bool:
    mark = folder / ".installed"
    return mark.exists() and mark.read_text() == _digest(listed)


def _mark(folder: Path, listed: Path) -> None:
    (folder / ".installed").write_text(_digest(listed))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
