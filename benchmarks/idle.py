"""Logging in, and what a connection costs while nothing happens on it."""

from __future__ import annotations

from benchmarks.client import Alarm, connect_all
from benchmarks.load import LOGINS_AT_ONCE, Figures, Meter, log_in, make_clients
from benchmarks.servers import Server

_WARM_UP_LOGINS = 20
_LOOK_EVERY = 0.2
_SETTLED = 4  # equal readings in a row
_SETTLE_MAX = 6.0
_SAME_KIB = 64


async def run(server: Server, connections: int) -> Figures:
    """A frame with a message ends the run: nobody sends one."""
    alarm = Alarm()
    # The first logins import and allocate what all later ones share.
    for client in await log_in(alarm, server, [f"Uw{number}" for number in range(_WARM_UP_LOGINS)]):
        client.leave()
    before = await _settled_kib(alarm, server)
    clients = make_clients(alarm, server, [f"Ui{number}" for number in range(connections)])
    meter = Meter(server)
    await connect_all(clients, server.url, LOGINS_AT_ONCE)
    figures = meter.read(connections)
    after = await _settled_kib(alarm, server)
    for client in clients:
        client.leave()
    figures["kib"] = (after - before) / connections
    return figures


async def _settled_kib(alarm: Alarm, server: Server) -> int:
    """Its resident memory once it has stopped to change: the collector may still free what logging in left."""
    last, same, waited = server.family_resident_kib(), 0, 0.0
    while same < _SETTLED and waited < _SETTLE_MAX:
        await alarm.sleep(_LOOK_EVERY)
        waited += _LOOK_EVERY
        now = server.family_resident_kib()
        same = same + 1 if abs(now - last) < _SAME_KIB else 0
        last = now
    return last
