"""Who is measured: kama, and its peers as far as this machine has what they run on."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from benchmarks.full import FullNode
from benchmarks.peers.installed import NotHere
from benchmarks.peers.server import PeerServer, node_peer, python_peer
from benchmarks.report import BARE
from benchmarks.servers import KamaServer, Server

KAMA, KAMA_DISK, UPSTREAM = "kama", "kama, disk", "upstream's way"
_UVICORN = ("uvicorn", "websockets", "httptools", "uvloop")
PEERS: dict[str, Callable[[], PeerServer]] = {
    BARE: lambda: node_peer(BARE, "ws_relay.mjs", "ws", "bufferutil"),
    "socket.io": lambda: node_peer("socket.io", "socketio_relay.mjs", "socket.io"),
    "aiohttp": lambda: python_peer("aiohttp", "aiohttp_relay.py", "aiohttp"),
    "starlette": lambda: python_peer("starlette", "starlette_relay.py", "starlette", *_UVICORN),
    "python-socketio": lambda: python_peer("python-socketio", "socketio_relay.py", "python-socketio"),
    UPSTREAM: lambda: python_peer(UPSTREAM, "upstream_way.py", "aiosqlite"),
}
SERVERS = (KAMA, KAMA_DISK, *PEERS)


def contestants(options: argparse.Namespace, absent: dict[str, str]) -> list[Server]:
    """The servers asked for, in an order that is the same in each round; what is not here goes to `absent`."""
    servers: list[Server] = []
    for name in options.servers or SERVERS:
        if name in (KAMA, KAMA_DISK):
            servers.append(_kama(name, options))
            continue
        try:
            servers.append(PEERS[name]())
        except NotHere as missing:
            absent[name] = str(missing)
    return servers


def full_and_empty(options: argparse.Namespace) -> Sequence[Server]:
    empty = KamaServer("normal", options.websocket)
    empty.name = "kama, empty"
    return empty, FullNode("normal", options.websocket)


def _kama(name: str, options: argparse.Namespace) -> KamaServer:
    server = KamaServer("full" if name == KAMA_DISK else "normal", options.websocket)
    server.name = name
    return server


def versions(servers: Sequence[Server]) -> dict[str, str]:
    found: dict[str, str] = {}
    for server in servers:
        if isinstance(server, PeerServer):
            found |= server.versions()
    return found
