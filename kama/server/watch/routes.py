"""The routes of those who look: `GET /monitor/ws` and `GET /monitor/snapshot`, for viewers and administrators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import structlog
from starlette.requests import Request
from starlette.websockets import WebSocket

from kama.errors import CloseCode, Forbidden, KamaError, Unauthorised
from kama.monitor_protocol import Bye, EventQuery, Snapshot, Sub
from kama.protocol import encode
from kama.server.auth import Identity
from kama.server.guard import check_origin, error_response
from kama.server.handlers import find_token
from kama.server.watch.event_feed import EventFeed
from kama.server.watch.frames import Frames
from kama.server.watch.watcher import ByeReason, Watcher
from kama.server.websocket import Socket, socket_of

if TYPE_CHECKING:
    from kama.server.app import Node

log = structlog.get_logger("kama.watch")

WATCHERS_MAX = 8


class Watchers:
    """Those who look at this node, at most eight."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def __len__(self) -> int:
        return len(self._watchers)

    @property
    def is_full(self) -> bool:
        return len(self._watchers) >= WATCHERS_MAX

    @contextlib.contextmanager
    def including(self, watcher: Watcher) -> Iterator[None]:
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def end(self, why: ByeReason, code: int, reason: str) -> None:
        for watcher in list(self._watchers):
            watcher.end(why, code, reason)


async def watch(websocket: WebSocket) -> None:
    """One who looks."""
    node: Node = websocket.app.state.node
    try:
        check_origin(websocket, node.settings.server.allowed_origins)
        token, subprotocol = find_token(websocket)
        if token is None:
            raise Unauthorised('expected the header Authorization: Bearer <token>, or ["bearer", token], got none')
        identity = node.tokens.verify(token)
        if identity.role not in ("viewer", "admin"):
            raise Forbidden(f"expected the role viewer or admin, got {identity.role}")
        node.check_open()
    except KamaError as error:
        await websocket.send_denial_response(error_response(error))
        return
    await websocket.accept(subprotocol)
    socket = socket_of(websocket)
    socket.hand_over(lambda: _watch(node, socket, identity))


async def _watch(node: Node, socket: Socket, identity: Identity) -> None:
    if node.watchers.is_full:
        message = f"this node is watched by {WATCHERS_MAX} already: try again later, or watch another node"
        socket.write_frames([encode(Bye(reason="too_many_watchers", message=message))])
        socket.close_now(CloseCode.GOING_AWAY, "too many watchers")
        return
    watcher = Watcher(node, socket, identity)
    log.info("watching", actor=identity.user_id, role=identity.role)
    with node.watchers.including(watcher):
        await watcher.run()
    log.info("watched", actor=identity.user_id)


async def snapshot(node: Node, identity: Identity, _request: Request) -> Snapshot:
    """What a watcher sees first, for those who look once."""
    frames = Frames(node, Sub(events=None))
    try:
        snap = await frames.snap(interval_ms=0)
    finally:
        frames.end()
    taken = await EventFeed(node.journal, node.name, EventQuery()).take()
    return Snapshot(hello=node.view.hello(identity), snap=snap, events=taken.items)
