"""A peer of kama's under measurement: a small relay on another stack, that stores nothing unless its name says so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.peers.installed import FOLDER, NODE_FOLDER, node, python
from benchmarks.servers import SECRET, Server

_PYTHON_VERSIONS = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"


class PeerServer(Server):
    """`script` runs on `runtime`, the path of Node.js or of a Python that has what it imports."""

    def __init__(self, name: str, runtime: str, script: Path, packages: Sequence[str]) -> None:
        self.name = name
        self.protocol = "socket.io" if script.stem == "socketio_relay" else "plain"
        self._runtime = runtime
        self._script = script
        self._packages = packages

    def command(self) -> Sequence[str]:
        return [self._runtime, str(self._script)]

    def environment(self) -> Mapping[str, str]:
        database = str(self.folder / "peer.db")
        return {**super().environment(), "PEER_SECRET": SECRET, "PEER_DATABASE": database, "NODE_ENV": "production"}

    def stop(self) -> None:
        """At once: it has nothing that would be read afterwards."""
        self._process.kill()
        self._process.wait()

    def versions(self) -> dict[str, str]:
        """Of its runtime and of the packages that it is made of."""
        runtime = self._told("--version").split()[-1].removeprefix("v")
        if self._script.parent == NODE_FOLDER:
            modules = NODE_FOLDER / "node_modules"
            found = [json.loads((modules / name / "package.json").read_text())["version"] for name in self._packages]
            return {"node": runtime, **dict(zip(self._packages, found, strict=True))}
        found = self._told("-c", _PYTHON_VERSIONS, *self._packages).split()
        return {"python of the peers": runtime, **dict(zip(self._packages, found, strict=True))}

    def _told(self, *arguments: str) -> str:
        return subprocess.run([self._runtime, *arguments], capture_output=True, text=True, check=True).stdout


def node_peer(name: str, script: str, *packages: str) -> PeerServer:
    """Raises NotHere."""
    return PeerServer(name, node(), NODE_FOLDER / script, packages)


def python_peer(name: str, script: str, *packages: str, runtime: str | None = None) -> PeerServer:
    """`runtime`: a Python that has the packages; None: that of the peers' venv. Raises NotHere."""
    return PeerServer(name, runtime or python(), FOLDER / "python" / script, packages)
