"""Connections without a network: what they were given is found on their socket."""

from __future__ import annotations

import itertools
import time
from typing import Any

from server_builders import identity_of
from test_ws_gateway import FakeBacklog, FakeSocket

from kama.server.events import Journal
from kama.server.send_queue import ConnLimits
from kama.server.write_turn import Writer, WriteTurn
from kama.server.ws_gateway import UserConn

_numbers = itertools.count(1)


class ByHand(WriteTurn):
    """What is queued goes out when the test says so."""

    def add(self, writer: Writer) -> None:
        pass


def build_conn(
    user_id: str = "U1",
    *,
    since: float | None = None,
    post_only: bool = False,
    limits: ConnLimits | None = None,
    journal: Journal | None = None,
) -> UserConn:
    """A connection that is caught up already."""
    conn = UserConn(
        id=f"c{next(_numbers)}",
        identity=identity_of(user_id),
        socket=FakeSocket(),
        welcome=b"{}",
        backlog=FakeBacklog(),
        limits=limits or ConnLimits(),
        sent=lambda user_id, back, up_to, conn_id: None,
        closed=lambda conn: None,
        post_only=post_only,
        journal=journal or Journal(),
        turn=ByHand(),
        since=time.time() if since is None else since,
    )
    conn.pushed.is_live = True
    conn.start(lambda conn, data: None)
    return conn


def frames_of(conn: UserConn) -> list[dict[str, Any]]:
    """What it was given so far."""
    conn.write_out()
    assert isinstance(conn.socket, FakeSocket)
    return conn.socket.frames[1:]


def close_of(conn: UserConn) -> tuple[int, str] | None:
    """How it was closed, if it was."""
    assert isinstance(conn.socket, FakeSocket)
    return conn.socket.closed
