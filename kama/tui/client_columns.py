"""The columns of connections: what is asked of who is logged in."""

from __future__ import annotations

from kama.errors import CloseCode
from kama.monitor_protocol import Client, ClientOrder, Closed
from kama.tui.cells import clock, number, size, span
from kama.tui.columns import Cell, Column
from kama.tui.look import Tone, bar

_BAR = 5
_FULL = 0.8
# What a column is called where the node puts connections in order.
ORDERS: dict[str, ClientOrder] = {
    "user": "user", "device": "device", "queue": "queue", "high": "high", "in": "in", "out": "out",
    "dropped": "dropped", "idle": "idle", "since": "since",
}  # fmt: skip


def is_faulty(client: Client) -> bool:
    return fullness(client) != "" or client.dropped > 0 or client.refused > 0


def fullness(client: Client) -> Tone:
    """How bad the state of its queue is."""
    if not client.capacity or client.depth < _FULL * client.capacity:
        return ""
    return "bad" if client.depth >= client.capacity else "warn"


def _queue(client: Client, now_ms: int) -> Cell:
    return f"{client.depth:>4} {bar(client.depth, client.capacity, _BAR)}", fullness(client)


def _dropped(client: Client, now_ms: int) -> Cell:
    return number(client.dropped), "bad" if client.dropped else "dim"


def _refused(client: Client, now_ms: int) -> Cell:
    return number(client.refused), "warn" if client.refused else "dim"


def _expires(client: Client, now_ms: int) -> Cell:
    if not client.expires_ms:
        return "–"
    left = client.expires_ms - now_ms
    return span(left), "warn" if left < 60_000 else ""


USER: Column[Client] = Column("user", "USER", 12, lambda client, now_ms: client.user_id, grow=2,
                      sort_by=lambda client: client.user_id, descending=False)  # fmt: skip
DEVICE: Column[Client] = Column("device", "DEVICE", 8, lambda client, now_ms: client.device, priority=3, grow=1,
                        sort_by=lambda client: client.device, descending=False)  # fmt: skip
NODE: Column[Client] = Column("node", "NODE", 10, lambda client, now_ms: client.node, priority=6, grow=1, align="tail")
QUEUE: Column[Client] = Column("queue", "QUEUE", 10, _queue, sort_by=lambda client: (client.depth, client.queued_bytes))
HIGH: Column[Client] = Column("high", "HIGH", 6, lambda client, now_ms: number(client.high), priority=7, align="right",
                      sort_by=lambda client: client.high)  # fmt: skip
BYTES: Column[Client] = Column(
    "bytes", "BYTES", 7, lambda client, now_ms: size(client.queued_bytes), priority=9, align="right"
)
IN: Column[Client] = Column("in", "IN/s", 6, lambda client, now_ms: number(client.in_rate), priority=1, align="right",
                    sort_by=lambda client: client.in_rate)  # fmt: skip
OUT: Column[Client] = Column("out", "OUT/s", 6, lambda client, now_ms: number(client.out_rate), align="right",
                     sort_by=lambda client: client.out_rate)  # fmt: skip
DROPPED: Column[Client] = Column("dropped", "DROP", 6, _dropped, align="right", priority=2,
                         sort_by=lambda client: client.dropped)  # fmt: skip
REFUSED: Column[Client] = Column("refused", "REFUSED", 7, _refused, align="right", priority=8)
IDLE: Column[Client] = Column("idle", "IDLE", 6, lambda client, now_ms: span(now_ms - client.last_ms), align="right",
                      priority=2, sort_by=lambda client: -client.last_ms)  # fmt: skip
SINCE: Column[Client] = Column("since", "SINCE", 8, lambda client, now_ms: clock(client.since_ms), priority=5,
                       sort_by=lambda client: client.since_ms)  # fmt: skip
ADDRESS: Column[Client] = Column("address", "ADDRESS", 21, lambda client, now_ms: client.address, priority=10)
EXPIRES: Column[Client] = Column("expires", "TOKEN", 6, _expires, priority=11, align="right")
CONNECTION: Column[Client] = Column("connection", "CONNECTION", 12, lambda client, now_ms: client.id, priority=13)
ERROR: Column[Client] = Column(
    "error", "LAST REFUSED", 14, lambda client, now_ms: (client.error, "warn"), priority=12, grow=3
)

BUSIEST = (USER, DEVICE, NODE, QUEUE, IN, OUT, DROPPED, IDLE)
ALL = (USER, DEVICE, NODE, QUEUE, HIGH, BYTES, IN, OUT, DROPPED, REFUSED, IDLE, SINCE, EXPIRES, ADDRESS, CONNECTION,
       ERROR)  # fmt: skip

_KIND_OF_CLOSE: dict[int, Tone] = {
    CloseCode.NORMAL: "dim", CloseCode.GOING_AWAY: "dim", CloseCode.SLOW_CONSUMER: "bad", CloseCode.ABUSE: "bad",
    CloseCode.KICKED: "accent", CloseCode.INTERNAL_ERROR: "bad",
}  # fmt: skip


def _code(closed: Closed, now_ms: int) -> Cell:
    return str(closed.code), _KIND_OF_CLOSE.get(closed.code, "warn")


CLOSED: tuple[Column[Closed], ...] = (
    Column("time", "CLOSED AT", 9, lambda closed, now_ms: (clock(closed.until_ms), "dim")),
    Column("user", "USER", 12, lambda closed, now_ms: closed.user_id, grow=1),
    Column("device", "DEVICE", 8, lambda closed, now_ms: closed.device, priority=4, grow=1),
    Column("node", "NODE", 10, lambda closed, now_ms: closed.node, priority=5, grow=1, align="tail"),
    Column("code", "CODE", 5, _code, align="right"),
    Column("reason", "REASON", 16, lambda closed, now_ms: closed.reason, grow=2),
    Column("lasted", "LASTED", 7, lambda closed, now_ms: span(closed.until_ms - closed.since_ms), priority=3,
           align="right"),
    Column("address", "ADDRESS", 21, lambda closed, now_ms: closed.address, priority=6),
)  # fmt: skip
