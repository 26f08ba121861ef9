"""Sums over all connections equal what walking them would give."""

from __future__ import annotations

from conn_builders import build_conn
from hypothesis import given
from hypothesis import strategies as st
from test_ws_gateway import FakeSocket

from kama.server.events import Journal
from kama.server.send_queue import ConnLimits
from kama.server.transport.ws_frame import text_frame
from kama.server.ws_gateway import UserConn

_LIMITS = ConnLimits(messages=6, bytes=1000)


def sharing(journal: Journal, count: int) -> list[UserConn]:
    return [build_conn(f"U{number}", limits=_LIMITS, journal=journal) for number in range(count)]


def block(conn: UserConn, blocked: bool) -> None:
    assert isinstance(conn.socket, FakeSocket)
    conn.socket.can_write = not blocked


_FRAME = b'{"type":"pong"}'
_MOVES = st.sampled_from(["control", "signal", "flush", "block", "unblock", "close"])


@given(st.lists(st.tuples(st.integers(0, 2), _MOVES), max_size=60))
def test_the_sums_are_those_of_the_connections(moves: list[tuple[int, str]]) -> None:
    journal = Journal()
    conns = sharing(journal, 3)
    for number, move in moves:
        conn = conns[number]
        match move:
            case "control":
                conn.offer_control(_FRAME)
            case "signal":
                conn.offer_ephemeral(_FRAME)
            case "flush":
                conn.write_out()
            case "close":
                conn.close(1000)
            case _:
                block(conn, move == "block")
        traffic = journal.traffic
        assert traffic.queued == sum(conn.depth for conn in conns)
        assert traffic.written == sum(conn.counters.written for conn in conns)
        assert traffic.written_bytes == len(text_frame(_FRAME)) * traffic.written
        assert traffic.dropped == sum(conn.counters.dropped for conn in conns)
    assert [entry[1] for entry in journal.since(0)[0]] == ["dropped"] * journal.traffic.dropped


def test_a_connection_that_ends_takes_its_queue_out_of_the_sum() -> None:
    journal = Journal()
    (conn,) = sharing(journal, 1)
    block(conn, True)
    for _ in range(4):
        conn.offer_control(_FRAME)
    assert (journal.traffic.queued, journal.traffic.queued_mark.high) == (4, 4)
    conn.close(1000)
    assert (journal.traffic.queued, journal.traffic.queued_mark.take(0)) == (0, 4)
