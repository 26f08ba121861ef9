"""Logging in, and what a connection costs while nothing happens on it."""

from __future__ import annotations

from benchmarks.load import LOGINS_AT_ONCE, Figures, Meter, log_in, make_peers
from benchmarks.peer import Alarm, Failed, connect_all
from benchmarks.servers import Server

_WARM_UP_LOGINS = 20
_LOOK_EVERY = 0.2
_SETTLED = 4  # equal readings in a row
_SETTLE_MAX = 6.0
_SAME_KIB = 64


async def run(server: Server, connections: int) -> Figures:
    alarm = Alarm()
    # The first logins import and allocate what all later ones share.
    for peer in await log_in(alarm, server, [f"Uw{number}" for number in range(_WARM_UP_LOGINS)]):
        peer.leave()
    before = await _settled_kib(alarm, server)
    peers = make_peers(alarm, server, [f"Ui{number}" for number in range(connections)])
    meter = Meter(server)
    await connect_all(peers, server.url, LOGINS_AT_ONCE)
    figures = meter.read(connections)
    after = await _settled_kib(alarm, server)
    if any(peer.messages for peer in peers):
        raise Failed("an idle connection got a message")
    for peer in peers:
        peer.leave()
    figures["kib"] = (after - before) / connections
    return figures


async def _settled_kib(alarm: Alarm, server: Server) -> int:
    """Its resident memory once it has stopped to change: the collector may still free what logging in left."""
    last, same, waited = server.resident_kib(), 0, 0.0
    while same < _SETTLED and waited < _SETTLE_MAX:
        await alarm.sleep(_LOOK_EVERY)
        waited += _LOOK_EVERY
        now = server.resident_kib()
        same = same + 1 if abs(now - last) < _SAME_KIB else 0
        last = now
    return last
