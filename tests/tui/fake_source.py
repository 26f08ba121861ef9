"""A source whose frames the test gives, and a node's worth of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Self

from msgspec.structs import replace

from kama.errors import Forbidden
from kama.monitor.frames import Frame, Item
from kama.monitor.link import Link, LinkState
from kama.monitor.options import MonitorOptions
from kama.monitor.source import REQUEST_TIMEOUT, Request
from kama.monitor_protocol import (
    Client,
    Closed,
    Counters,
    Event,
    Events,
    Hello,
    History,
    Kick,
    MessageTrace,
    Node,
    Outcome,
    Point,
    Queue,
    Send,
    Snap,
    Sub,
    Trace,
    User,
    UserDetail,
)

NOW_MS = 1_795_530_674_000
SERVER = "http://127.0.0.1:8000"


class FakeSource:
    """`put` frames; `sent` keeps what was asked. Its clock stands still unless a test sets `clock_ms`."""

    def __init__(self, *frames: Frame) -> None:
        self.clock_ms = NOW_MS
        self.sent: list[Request | Sub] = []
        self.retries = 0
        self.refuses = False
        self.forgets = False  # what became of messages
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        for frame in frames:
            self.put(frame)

    def put(self, frame: Frame, source: str = SERVER) -> None:
        self._items.put_nowait(Item(source, frame, self.clock_ms))

    async def taken(self) -> None:
        """Until everything that was put has been taken."""
        while not self._items.empty():
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def __aiter__(self) -> AsyncGenerator[Item, None]:
        while True:
            yield await self._items.get()

    @property
    def names(self) -> tuple[str, ...]:
        return (SERVER,)

    def now_ms(self) -> int:
        return self.clock_ms

    async def subscribe(self, sub: Sub) -> None:
        self.sent.append(sub)

    async def request(self, request: Request, *, source: str = "", timeout: float = REQUEST_TIMEOUT) -> Outcome:
        self.sent.append(request)
        if self.refuses:
            raise Forbidden("expected the role admin, got viewer")
        match request:
            case Kick():
                return Outcome(closed=2)
            case Send():
                return Outcome(uuid="2125235801066311680", conversation="U1_U2", seq=7)
            case Trace():
                forgotten = MessageTrace(uuid=request.uuid, steps=[], status=1, evicted=True)
                return Outcome(trace=forgotten if self.forgets else a_trace(request.uuid))
            case User():
                return Outcome(
                    user=UserDetail(
                        user_id=request.user_id,
                        clients=[c for c in clients() if c.user_id == request.user_id],
                        groups=["G1", "G2"],
                        elsewhere=1,
                    )
                )
            case _:
                return Outcome()

    def retry_now(self) -> None:
        self.retries += 1


def options(**changes: object) -> MonitorOptions:
    return MonitorOptions(servers=(SERVER,), token=str, **changes)  # type: ignore[arg-type]


def link(state: LinkState = LinkState.LIVE, **changes: object) -> Link:
    return Link(state=state, since_ms=NOW_MS - 12_000, **changes)  # type: ignore[arg-type]


def hello(**changes: object) -> Hello:
    known: dict[str, object] = {
        "protocol": 1, "node": "n1", "epoch": "e1", "mode": "kafka", "version": "0.1.0",
        "started_ms": NOW_MS - 11_564_000, "now_ms": NOW_MS, "role": "admin", "user_id": "Uoperator",
        "expires_ms": NOW_MS + 600_000, "actions": ["kick", "send", "drain"],
    }  # fmt: skip
    return Hello(**(known | changes))  # type: ignore[arg-type]


def nodes() -> list[Node]:
    queues = {
        "transmit": Queue(depth=12, high=40, capacity=100),
        "send_back": Queue(depth=712, high=930, capacity=0),
        "status": Queue(depth=3, high=9, capacity=10_000),
        "cache": Queue(depth=0, high=1, capacity=1000),
    }
    common = {"version": "0.1.0", "mode": "kafka", "beat_ms": NOW_MS, "started_ms": NOW_MS - 11_564_000}
    return [
        Node(
            name="n1", epoch="e1", address="10.0.0.1:8000", connections=3_200, users=3_000, queues=queues,
            counters=Counters(accepted=4_120_000, stored=4_119_900, written=11_904_000, dropped=31, refused=4,
                              logins=8_000, logins_refused=2, closed=4_800),
            largest_batch=64, batch_ms=4.2, status_ms=1.4, sent_p50_ms=8.0, sent_p99_ms=41.0, loop_lag_ms=3.0,
            cpu_percent=61.0, rss_bytes=212 << 20, **common,
        ),
        Node(
            name="n2", epoch="e2", address="10.0.0.2:8000", connections=1_800, users=1_750, state="up",
            queues={"transmit": Queue(depth=2, high=5, capacity=100)}, cpu_percent=33.0, rss_bytes=180 << 20,
            loop_lag_ms=140.0, **common | {"version": "0.0.9"},
        ),
        Node(name="n3", epoch="e3", address="10.0.0.3:8000", state="gone", **common | {"beat_ms": NOW_MS - 41_000}),
    ]  # fmt: skip


def clients() -> list[Client]:
    def client(number: int, user_id: str, depth: int, **more: object) -> Client:
        known: dict[str, object] = {
            "device": "ios", "address": f"192.0.2.{number}:5000", "since_ms": NOW_MS - 60_000 * number,
            "last_ms": NOW_MS - 700 * number, "expires_ms": NOW_MS + 300_000, "high": depth, "capacity": 100,
            "queued_bytes": depth * 210, "received": 100 * number, "written": 300 * number, "in_rate": 62.0 / number,
            "out_rate": 219.0 / number,
        }  # fmt: skip
        return Client(id=f"c{number}", user_id=user_id, node="n1", depth=depth, **(known | more))  # type: ignore[arg-type]

    return [
        client(1, "U000540", 100, dropped=31, error="1009 too many messages"),
        client(2, "U000633", 84, device="王小明的手机"),
        client(3, "U000096", 12),
        client(4, "U777777", 0, device="web", last_ms=NOW_MS - 3_700_000, refused=3),
        *(client(number, f"U1000{number:02}", 0) for number in range(5, 25)),
    ]


def closed() -> list[Closed]:
    return [
        Closed(id="c91", user_id="U000011", node="n1", device="ios", address="192.0.2.91:5000",
               since_ms=NOW_MS - 90_000, until_ms=NOW_MS - 5_000, code=1000, reason="logout"),
        Closed(id="c92", user_id="U000012", node="n1", device="web", address="192.0.2.92:5000",
               since_ms=NOW_MS - 3_600_000, until_ms=NOW_MS - 2_000, code=4008, reason="slow consumer"),
    ]  # fmt: skip


def events() -> list[Event]:
    one = "2125235801066311680"
    two = "2125235802332991488"
    return [
        Event(at_ms=NOW_MS - 900, kind="opened", node="n1", user_id="U000633", connection="c2", text="192.0.2.2:5000"),
        *a_trace(one).steps,
        Event(at_ms=NOW_MS - 400, kind="accepted", node="n1", uuid=two, conversation="U1_U2", send_id="U000633",
              receive_id="U000777", type=2, size=48_000),
        Event(at_ms=NOW_MS - 395, kind="stored", node="n1", uuid=two, conversation="U1_U2", seq=9, count=3,
              took_ms=2.5),
        Event(at_ms=NOW_MS - 300, kind="refused", node="n1", user_id="U777777", connection="c4", code=1009,
              text="too many messages"),
        Event(at_ms=NOW_MS - 200, kind="dropped", node="n1", user_id="U000540", connection="c1", text="queue is full"),
        Event(at_ms=NOW_MS - 100, kind="not_stored", node="n1", uuid="2125235802332991499", send_id="U000633",
              receive_id="U1", text="the store failed"),
        Event(at_ms=NOW_MS - 50, kind="action", node="n1", user_id="Uadmin", text="kick U000012: spam"),
    ]  # fmt: skip


def a_trace(uuid: str) -> MessageTrace:
    def at(ms: int, kind: str, **more: object) -> Event:
        return Event(at_ms=NOW_MS - 800 + ms, kind=kind, node="n1", uuid=uuid, **more)  # type: ignore[arg-type]

    steps = [
        at(0, "accepted", conversation="U000096_U000633", send_id="U000633", receive_id="U000096", size=12),
        at(9, "stored", conversation="U000096_U000633", seq=41, count=4, took_ms=8.6),
        at(10, "routed", members=2, online=2, depth=12),
        at(12, "written", user_id="U000096", took_ms=12.0),
        at(40, "sent", conversation="U000096_U000633", seq=41, user_id="U000096"),
    ]
    return MessageTrace(
        uuid=uuid, steps=steps, conversation="U000096_U000633", seq=41, send_id="U000633", receive_id="U000096",
        size=12, created_ms=NOW_MS - 800, status=1,
    )  # fmt: skip


def history() -> History:
    wave = [30, 45, 60, 72, 85, 96, 100, 92, 80, 66, 52, 40]
    points = [
        Point(NOW_MS - (180 - second) * 1000, 41.2 * wave[second % 12], 41.0 * wave[second % 12],
              119.0 * wave[(second + 3) % 12], 0.0, 3_200, second % 12, 7 * wave[(second + 6) % 12], 3,
              0.41 * wave[second % 12], 3.0)
        for second in range(180)
    ]  # fmt: skip
    return History(points=points)


def snap(seq: int = 1, **changes: object) -> Snap:
    known: dict[str, object] = {
        "at_ms": NOW_MS, "interval_ms": 250, "nodes": nodes(), "clients": clients(), "matched": 3_200, "total": 3_200,
        "closed": closed(),
    }  # fmt: skip
    return Snap(seq=seq, **(known | changes))  # type: ignore[arg-type]


def earlier() -> list[Node]:
    """Two seconds before."""
    n1, *others = nodes()
    counters = replace(n1.counters, accepted=n1.counters.accepted - 8_240, stored=n1.counters.stored - 8_200,
                       written=n1.counters.written - 23_808)  # fmt: skip
    return [replace(n1, counters=counters), *others]


def live() -> list[Frame]:
    before = snap(nodes=earlier(), at_ms=NOW_MS - 2_000)
    return [link(), hello(), history(), before, snap(2), Events(seq=3, items=events(), sampled_out=40)]


def empty() -> list[Frame]:
    quiet = Node(name="n1", epoch="e1", mode="channel", beat_ms=NOW_MS, started_ms=NOW_MS - 5_000,
                 queues={"transmit": Queue(capacity=100), "send_back": Queue()})  # fmt: skip
    nothing = snap(nodes=[quiet], clients=[], matched=0, total=0, closed=[])
    return [link(), hello(mode="channel"), History(points=[]), nothing]
