"""The words between a node and who watches it, over `GET /monitor/ws`: JSON frames, one per WebSocket message.

    node     hello, history, snap, then as they come: delta, events, result; bye at the end
    watcher  sub, ack, trace, user; with the role admin also kick, send, drain

A watcher says what it wants to see, and the node picks it: filter, order, how many, how often. Nothing is queued for a
watcher: each frame is made when its socket takes data, from what the node knows then. So a slow one gets fewer frames,
and each is of its moment. `seq` rises by one per frame; a delta changes what the frame `base` left.

Times ending in `_ms` are Unix milliseconds, other `_ms` durations; counters only rise while a node lives (`epoch`).
Unknown fields are skipped, so that either side may be newer.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct, field

from kama.protocol import ID_PATTERN

MONITOR_PROTOCOL = 1
ROWS_MAX = 500
INTERVAL_MS_MIN = 250
INTERVAL_MS_MAX = 10_000


# --- what is shown -------------------------------------------------------------------------------------


class Queue(Struct, kw_only=True):
    """A queue: how many wait, the most since the frame before, and how many it holds (0: no bound)."""

    depth: int = 0
    high: int = 0
    capacity: int = 0


class Counters(Struct, kw_only=True):
    """What a node has counted since it started."""

    accepted: int = 0
    stored: int = 0
    duplicates: int = 0
    not_stored: int = 0
    offered: int = 0
    received: int = 0  # frames from clients
    written: int = 0  # frames to clients
    written_bytes: int = 0
    sent: int = 0  # messages whose status rose to sent; likewise the next two
    delivered: int = 0
    read: int = 0
    dropped: int = 0  # frames that found no room
    refused: int = 0  # frames answered with an error
    rate_limited: int = 0
    signals: int = 0
    signals_dropped: int = 0
    store_failures: int = 0
    batches: int = 0
    folded: int = 0  # messages that were in the log first, and are in the database now
    logins: int = 0
    logins_refused: int = 0
    closed: int = 0
    forwarded: int = 0  # to other nodes
    inbox: int = 0  # from other nodes
    poisoned: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    cache_dropped: int = 0


class Partition(Struct, kw_only=True):
    """A partition that this node stores. `lag`: records that wait in Kafka."""

    partition: int
    position: int
    lag: int


class Node(Struct, kw_only=True):
    """A node as it is now, or as it last said. `state`: gone, when it has not said anything for too long."""

    name: str
    epoch: str
    address: str = ""
    version: str = ""
    mode: str = "channel"
    state: Literal["up", "draining", "gone"] = "up"
    started_ms: int = 0
    beat_ms: int = 0
    connections: int = 0
    users: int = 0
    counters: Counters = field(default_factory=Counters)
    # transmit, send_back (of all connections together), status, cache; retries, peers in kafka mode
    queues: dict[str, Queue] = field(default_factory=dict)
    largest_batch: int = 0
    batch_ms: float = 0.0  # the last transaction
    status_ms: float = 0.0  # the last batch of statuses
    sent_p50_ms: float | None = None  # from accepted to out of the process, over the last seconds
    sent_p99_ms: float | None = None
    loop_lag_ms: float = 0.0
    cpu_percent: float = 0.0
    rss_bytes: int = 0
    # What does not work now, in words: {"store": "failing: …", "cache": "…", "broker": "…"}
    troubles: dict[str, str] = field(default_factory=dict)
    partitions: list[Partition] = field(default_factory=list)
    rebalances: int = 0


class Client(Struct, kw_only=True):
    """One open connection. Rates are per second, over about the last second."""

    id: str
    user_id: str
    node: str
    device: str = ""
    address: str = ""
    post_only: bool = False
    since_ms: int = 0
    last_ms: int = 0  # when it last sent a frame, or came
    expires_ms: int = 0  # its token's end
    depth: int = 0
    high: int = 0
    capacity: int = 0
    queued_bytes: int = 0
    received: int = 0
    written: int = 0
    in_rate: float = 0.0
    out_rate: float = 0.0
    dropped: int = 0
    refused: int = 0
    error: str = ""  # what it was last refused


class Closed(Struct, kw_only=True):
    """A connection that ended, and why."""

    id: str
    user_id: str
    node: str
    device: str = ""
    address: str = ""
    since_ms: int = 0
    until_ms: int = 0
    code: int = 1000
    reason: str = ""


EventKind = Literal[
    "accepted", "produced", "stored", "routed", "written", "sent", "delivered", "read",  # the life of a message
    "refused", "dropped", "not_stored", "undeliverable",  # what went wrong with one
    "opened", "closed", "action", "alert",
]  # fmt: skip
FAILURES: frozenset[EventKind] = frozenset({"refused", "dropped", "not_stored", "undeliverable", "alert"})
# What a person has done is as rare, and is looked for.
NEVER_SAMPLED: frozenset[EventKind] = FAILURES | {"action"}


class Event(Struct, kw_only=True, omit_defaults=True):
    """Something that happened at `at_ms` on `node`. What does not apply stays at its default; never a content.

    accepted     uuid, conversation, send_id, receive_id, type, size, connection
    produced     uuid, place: topic/partition/offset
    stored       uuid, conversation, seq, count: messages in its transaction, took_ms: the transaction; text: duplicate
    routed       uuid, members: whom it concerns, online: connections here that were offered it,
                 depth: the deepest of their queues. Once more for other nodes that were told, with their names as text
    written      uuid, user_id, connection: its bytes have left the process; took_ms since accepted
    sent …       uuid, conversation, seq, user_id: the status that was committed
    refused      user_id, connection, code, text: an error frame or refused login
    dropped      user_id, connection, text: a frame that found no room
    not_stored   uuid, conversation, text: the store refused it for good
    undeliverable uuid, receive_id: a call signal that reached nobody
    opened       user_id, connection, text: address
    closed       user_id, connection, code, text: reason
    action       user_id: who asked, text: what was done to whom and why
    alert        text: something of the node's that fails, or works again
    """

    at_ms: int
    kind: EventKind
    node: str = ""
    uuid: str = ""
    conversation: str = ""
    seq: int = 0
    send_id: str = ""
    receive_id: str = ""
    type: int = 0
    size: int = 0
    user_id: str = ""
    connection: str = ""
    place: str = ""
    count: int = 0
    members: int = 0
    online: int = 0
    depth: int = 0
    took_ms: float = 0.0
    code: int = 0
    text: str = ""


class Point(Struct, array_like=True):
    """One second of a node's past, for its curves: rates per second, depths at its end."""

    at_ms: int
    accepted: float
    stored: float
    written: float
    dropped: float
    connections: int
    transmit: int
    send_back: int
    status: int
    sent_p99_ms: float | None
    loop_lag_ms: float


# --- from the watcher ----------------------------------------------------------------------------------

ClientOrder = Literal["queue", "high", "in", "out", "dropped", "idle", "since", "user", "device"]
CLIENT_ORDERS: tuple[ClientOrder, ...] = get_args(ClientOrder)


class ClientQuery(Struct, kw_only=True):
    """Which connections to show: the first `limit` after `offset`, of those that `filter` lets through.

    `filter` is in the language of `kama.monitor_filter`. `idle` and `since` order by how long ago.
    """

    sort: ClientOrder = "queue"
    descending: bool = True
    limit: Annotated[int, Meta(ge=0, le=ROWS_MAX)] = 50
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    filter: Annotated[str, Meta(max_length=500)] = ""


class EventQuery(Struct, kw_only=True):
    """Which events to show, and how many a second at most; those of NEVER_SAMPLED come on top, all of them."""

    per_second: Annotated[int, Meta(ge=0, le=1000)] = 100
    filter: Annotated[str, Meta(max_length=500)] = ""


Request = Annotated[str, Meta(min_length=1, max_length=64)]
UserId = Annotated[str, Meta(pattern=rf"^U{ID_PATTERN}\Z")]
UserOrGroup = Annotated[str, Meta(pattern=rf"^[UG]{ID_PATTERN}\Z")]


class Sub(Struct, tag="sub", kw_only=True):
    """What to see from now on; answered by a snap. `events` none: no events."""

    interval_ms: Annotated[int, Meta(ge=INTERVAL_MS_MIN, le=INTERVAL_MS_MAX)] = 250
    clients: ClientQuery = field(default_factory=ClientQuery)
    events: EventQuery | None = field(default_factory=EventQuery)


class Ack(Struct, tag="ack"):
    """The watcher has everything up to this frame. A node that waits for acks in vain slows down."""

    seq: int


class Trace(Struct, tag="trace", kw_only=True):
    """What became of a message. Answered by a result with a MessageTrace."""

    request: Request
    uuid: Annotated[str, Meta(pattern=r"^[0-9]{1,19}\Z")]


class User(Struct, tag="user", kw_only=True):
    """What a node knows of a user. Answered by a result with a UserDetail."""

    request: Request
    user_id: UserId


class Kick(Struct, tag="kick", kw_only=True):
    """Close a user's connections on all nodes, or one of them, with 4002. Answered by a result with `closed`."""

    request: Request
    user_id: UserId
    connection: str | None = None
    reason: Annotated[str, Meta(max_length=100)] = ""


class Send(Struct, tag="send", kw_only=True):
    """Send a text message as a user. Answered by a result with its `uuid`, `conversation` and `seq`.

    The same `request` is the same message: asking again stores it once.
    """

    request: Request
    send_id: UserId
    receive_id: UserOrGroup
    content: str


class Drain(Struct, tag="drain", kw_only=True):
    """Shut this node down as SIGTERM does."""

    request: Request


WatcherFrame = Sub | Ack | Trace | User | Kick | Send | Drain
ACTIONS = ("kick", "send", "drain")
decode_watcher_frame = msgspec.json.Decoder(WatcherFrame).decode


# --- from the node -------------------------------------------------------------------------------------


class Hello(Struct, tag="hello", kw_only=True):
    """First of all. `actions`: which of ACTIONS the token's role allows."""

    protocol: int
    node: str
    epoch: str
    mode: str
    version: str
    started_ms: int
    now_ms: int
    role: str
    user_id: str
    expires_ms: int
    actions: list[str] = field(default_factory=list)


class History(Struct, tag="history", kw_only=True):
    """This node's last minutes, a point a second, oldest first."""

    points: list[Point]


class Snap(Struct, tag="snap", kw_only=True):
    """Everything that the watcher asked to see. `matched` connections pass the filter, of `total` on this node."""

    seq: int
    at_ms: int
    interval_ms: int
    nodes: list[Node]
    clients: list[Client]
    matched: int = 0
    total: int = 0
    closed: list[Closed] = field(default_factory=list)


class Delta(Struct, tag="delta", kw_only=True):
    """What is not as the frame `base` left it: nodes, clients and closed connections that are new or changed, whole,
    and the ids of clients that are no longer among those to show."""

    seq: int
    base: int
    at_ms: int
    interval_ms: int
    nodes: list[Node] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    matched: int = 0
    total: int = 0
    closed: list[Closed] = field(default_factory=list)


class Events(Struct, tag="events", kw_only=True):
    """Events since the frame before, oldest first. `sampled_out` were left out to keep to `per_second`;
    `lost` were overwritten before this watcher took any."""

    seq: int
    items: list[Event]
    sampled_out: int = 0
    lost: int = 0


class Problem(Struct, kw_only=True):
    """Why a request was refused: a code of `kama.errors.Code`."""

    code: int
    message: str


class MessageTrace(Struct, kw_only=True):
    """What this node knows of a message: its events, oldest first, and how the store has it.

    `status` none: the store has no such message. `evicted`: too old for its events to be kept.
    """

    uuid: str
    steps: list[Event]
    conversation: str = ""
    seq: int = 0
    send_id: str = ""
    receive_id: str = ""
    type: int = 0
    size: int = 0
    created_ms: int = 0
    status: int | None = None
    evicted: bool = False


class UserDetail(Struct, kw_only=True):
    """A user: its connections on this node, how many it has elsewhere, its groups."""

    user_id: str
    clients: list[Client]
    elsewhere: int = 0
    groups: list[str] = field(default_factory=list)


class Outcome(Struct, kw_only=True, omit_defaults=True):
    """What came of a request; which of these, its frame says."""

    trace: MessageTrace | None = None
    user: UserDetail | None = None
    closed: int | None = None
    uuid: str | None = None
    conversation: str | None = None
    seq: int | None = None


class Result(Struct, tag="result", kw_only=True):
    """The answer to a frame with a `request`; `request` is empty for one that could not be read."""

    request: str
    error: Problem | None = None
    outcome: Outcome | None = None


class Bye(Struct, tag="bye", kw_only=True):
    """The node ends the watching, and why."""

    reason: Literal["shutdown", "auth_expired", "too_many_watchers"]
    message: str = ""


NodeFrame = Hello | History | Snap | Delta | Events | Result | Bye
decode_node_frame = msgspec.json.Decoder(NodeFrame).decode


class Snapshot(Struct, kw_only=True):
    """The one document of `GET /monitor/snapshot`: what a watcher sees first, in the envelope's `data`."""

    hello: Hello
    snap: Snap
    events: list[Event]
