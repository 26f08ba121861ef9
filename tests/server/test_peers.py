"""Peers: who is told what, in which order, and what a node does on the word of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from conn_builders import build_conn, close_of, frames_of
from msgspec import Raw
from server_builders import build_stored, until
from structlog.testing import capture_logs

from kama.errors import CloseCode, TooLarge
from kama.protocol import encode
from kama.server import peers as peers_module
from kama.server.channel_broker import ChannelBroker
from kama.server.delivery import Delivery
from kama.server.directory import LocalDirectory
from kama.server.membership import Membership
from kama.server.peers import Closed, Delivered, Event, GroupChanged, Joined, Notified, Peers, Signalled
from kama.server.registry import ClientRegistry
from kama.server.tasks import spawn
from kama.server.ws_gateway import UserConn

FRAME = b'{"type":"status","seq":1}'


class FakeDirectory(LocalDirectory):
    """Who is elsewhere, as the test says; it counts how often it is asked."""

    def __init__(self, **where: Collection[str]) -> None:
        self.where = where
        self.others: Collection[str] = ["n2", "n3", "n4"]
        self.look_ups = 0
        self.connections: dict[str, set[str]] = {}
        self.looks = 0

    async def look(self) -> None:
        self.looks += 1

    async def nodes_of(self, users: Collection[str]) -> Mapping[str, Collection[str]]:
        self.look_ups += 1
        await asyncio.sleep(0)
        return {user: self.where[user] for user in users if user in self.where}

    async def count(self, user_id: str, connection_ids: Collection[str] | None = None) -> int:
        mine = self.connections.get(user_id, set())
        return len(mine if connection_ids is None else mine & set(connection_ids))


class RecordingBroker(ChannelBroker):
    """Keeps what is forwarded, refuses what it is told to, and hands out what the test puts into its inbox."""

    def __init__(self) -> None:
        super().__init__(1)
        self.forwarded: list[tuple[str, bytes]] = []
        self.broken: dict[str, Exception] = {}
        self.tries = 0
        self.largest = 1 << 20
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()

    async def forward(self, node: str, payload: bytes) -> None:
        self.tries += 1
        await asyncio.sleep(0)
        if node in self.broken:
            raise self.broken[node]
        if len(payload) > self.largest:
            raise TooLarge("larger than it takes")
        self.forwarded.append((node, payload))

    async def inbox(self) -> AsyncIterator[bytes]:
        while True:
            yield await self.incoming.get()

    def told(self, node: str) -> list[Event]:
        """Everything that a node was told, in order."""
        events: list[Event] = []
        for receiver, payload in self.forwarded:
            if receiver == node:
                events += msgspec.json.decode(payload, type=list[Event])
        return events


class Rig:
    def __init__(self, **where: Collection[str]) -> None:
        self.directory = FakeDirectory(**where)
        self.broker = RecordingBroker()
        self.registry = ClientRegistry(100, 10, "allow")
        self.loads: list[str] = []
        self.membership = Membership(self._load)
        delivery = Delivery(self.registry, self.membership)
        self.peers = Peers(self.directory, self.broker, self.registry, delivery, self.membership)

    async def _load(self, group_id: str) -> frozenset[str]:
        self.loads.append(group_id)
        return frozenset({"U1", "U2"})

    def connect(self, user_id: str, **details: Any) -> UserConn:
        conn = build_conn(user_id, **details)
        self.registry.add(conn)
        return conn

    async def hear(self, *events: Event) -> None:
        """From another node, until it was acted upon."""
        expected = self.peers.received + len(events)
        self.broker.incoming.put_nowait(encode(list(events)))
        await until(lambda: self.peers.received == expected)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig(U1=["n2"], U2=["n2", "n3"])
    made.directory.others = []
    await made.peers.start()
    made.directory.others = ["n2", "n3", "n4"]
    yield made
    await made.peers.close()


def noted(user_id: str, text: str = "") -> Notified:
    return Notified(user_id, Raw(encode(text)))


# --- to others


async def test_only_the_nodes_that_hold_a_user_are_told(rig: Rig) -> None:
    await rig.peers.tell([(("U1",), noted("U1")), (("U2",), noted("U2")), (("U9",), noted("U9"))])
    assert [event.user_id for event in rig.broker.told("n2")] == ["U1", "U2"]  # type: ignore[union-attr]
    assert [event.user_id for event in rig.broker.told("n3")] == ["U2"]  # type: ignore[union-attr]
    assert rig.broker.told("n4") == []


async def test_a_node_that_holds_several_of_the_users_is_told_once(rig: Rig) -> None:
    await rig.peers.tell([(("U1", "U2"), noted("U1"))])
    assert sorted(node for node, _ in rig.broker.forwarded) == ["n2", "n3"]


async def test_a_batch_costs_one_look_up_and_one_record_a_node(rig: Rig) -> None:
    await rig.peers.tell([(("U2",), noted("U2", str(number))) for number in range(50)])
    assert (rig.directory.look_ups, len(rig.broker.forwarded)) == (1, 2)
    assert rig.peers.forwarded == 100


async def test_without_others_nobody_is_looked_up(rig: Rig) -> None:
    rig.directory.others = []
    await rig.peers.tell([(("U1",), noted("U1"))])
    rig.peers.post(("U1",), noted("U1"))
    rig.peers.post(None, GroupChanged("G1"))
    rig.directory.others = ["n2"]
    rig.peers.post(("U9",), noted("U9"))
    await until(lambda: rig.directory.look_ups > 0)
    assert (rig.directory.look_ups, rig.broker.tries) == (1, 0)


async def test_nothing_to_tell_costs_nothing(rig: Rig) -> None:
    await rig.peers.tell([])
    assert rig.directory.look_ups == 0


async def test_what_is_posted_goes_out_without_anybody_waiting(rig: Rig) -> None:
    rig.peers.post(("U1",), noted("U1"))
    assert rig.broker.tries == 0
    await until(lambda: rig.broker.told("n2") == [noted("U1")])


async def test_what_is_for_all_goes_to_each_other_node(rig: Rig) -> None:
    rig.peers.post(None, GroupChanged("G1"))
    await until(lambda: len(rig.broker.forwarded) == 3)
    assert [rig.broker.told(node) for node in ("n2", "n3", "n4")] == [[GroupChanged("G1")]] * 3
    assert rig.directory.look_ups == 0


async def test_each_node_is_told_in_the_order_of_the_posts(rig: Rig) -> None:
    events: list[Event] = []
    for number in range(30):
        event: Event = GroupChanged(f"G{number}") if number % 3 == 0 else noted("U2", str(number))
        events.append(event)
        rig.peers.post(None if isinstance(event, GroupChanged) else ("U2",), event)
        if number % 7 == 0:
            await asyncio.sleep(0)
    await until(lambda: len(rig.broker.told("n3")) == 30)
    assert rig.broker.told("n3") == rig.broker.told("n2") == events


async def test_what_is_told_is_split_before_it_grows_larger_than_a_record(rig: Rig) -> None:
    """A batch of long messages is larger than what Kafka takes as one record."""
    await rig.peers.tell([(("U1",), noted("U1", f"{number} " + "x" * 50_000)) for number in range(60)])
    told = rig.broker.told("n2")
    assert [msgspec.json.decode(event.frame).split()[0] for event in told] == list(map(str, range(60)))  # type: ignore[union-attr]
    assert max(len(payload) for _, payload in rig.broker.forwarded) <= rig.broker.largest


async def test_what_no_inbox_takes_is_passed_over_and_logged(rig: Rig) -> None:
    rig.broker.largest = 1000
    with capture_logs() as logs:
        await rig.peers.tell([(("U1",), noted("U1", "x" * 2000))])
        await rig.peers.tell([(("U1",), noted("U1", "small"))])
    assert rig.broker.told("n2") == [noted("U1", "small")]
    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_a_node_that_cannot_be_reached_is_tried_until_it_can(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "_RETRY_FIRST", 0.001)
    rig.broker.broken["n2"] = RuntimeError("away")
    with capture_logs() as logs:
        telling = spawn(rig.peers.tell([(("U1",), noted("U1"))]), name="tell")
        await until(lambda: rig.broker.tries > 3)
        assert not telling.done()
        del rig.broker.broken["n2"]
        await asyncio.wait_for(telling, 10)
    assert rig.broker.told("n2") == [noted("U1")]
    assert {entry["node"] for entry in logs} == {"n2"}


async def test_a_signal_is_not_told_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be told for certain may have been told: a phone would ring twice."""
    monkeypatch.setattr(peers_module, "_RETRY_FIRST", 0.001)
    rig.broker.broken["n2"] = TimeoutError("no answer in time")
    signal = Signalled("U1", Raw(FRAME))
    telling = spawn(rig.peers.tell([(("U1",), noted("U1", "first")), (("U1",), signal)]), name="tell")
    await until(lambda: rig.broker.tries > 0)
    del rig.broker.broken["n2"]
    await asyncio.wait_for(telling, 10)
    await rig.peers.tell([(("U1",), signal)])
    assert rig.broker.told("n2") == [noted("U1", "first"), signal]


async def test_a_node_that_is_gone_is_not_tried_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "_RETRY_FIRST", 0.001)
    rig.broker.broken["n2"] = RuntimeError("away")
    telling = spawn(rig.peers.tell([(("U2",), noted("U2"))]), name="tell")
    await until(lambda: rig.broker.tries > 1)
    rig.directory.others = ["n3", "n4"]
    await asyncio.wait_for(telling, 10)
    assert (rig.broker.told("n2"), rig.broker.told("n3")) == ([], [noted("U2")])


async def test_closing_ends_what_is_still_being_tried(rig: Rig) -> None:
    rig.broker.broken["n2"] = RuntimeError("away")
    rig.peers.post(("U1",), noted("U1"))
    await until(lambda: rig.broker.tries > 0)
    async with asyncio.timeout(5):
        await rig.peers.close()
        await rig.peers.close()


async def test_a_node_that_comes_makes_itself_known_to_all() -> None:
    rig = Rig()
    await rig.peers.start()
    await until(lambda: len(rig.broker.forwarded) == 3)
    assert [rig.broker.told(node) for node in ("n2", "n3", "n4")] == [[Joined()]] * 3
    await rig.peers.close()


# --- from others


async def test_a_node_that_came_is_looked_for(rig: Rig) -> None:
    await rig.hear(Joined())
    assert rig.directory.looks == 1


async def test_a_message_reaches_the_connections_of_both(rig: Rig) -> None:
    sender, receiver, other = (rig.connect(user) for user in ("U1", "U2", "U3"))
    await rig.hear(Delivered("U1_U2", build_stored(1)))
    assert [len(frames_of(conn)) for conn in (sender, receiver, other)] == [1, 1, 0]
    assert frames_of(receiver)[0]["content"] == "hello"


async def test_a_message_that_was_told_twice_is_pushed_once(rig: Rig) -> None:
    receiver = rig.connect("U2")
    for _ in range(2):
        await rig.hear(Delivered("U1_U2", build_stored(1)))
    assert [frame["seq"] for frame in frames_of(receiver)] == [1]


async def test_a_signal_reaches_its_receiver_alone(rig: Rig) -> None:
    sender, receiver = rig.connect("U1"), rig.connect("U2")
    await rig.hear(Signalled("U2", Raw(FRAME)))
    assert (frames_of(sender), len(frames_of(receiver))) == ([], 1)


async def test_a_frame_for_a_user_reaches_all_connections_of_it(rig: Rig) -> None:
    phone, laptop, other = rig.connect("U1"), rig.connect("U1"), rig.connect("U2")
    await rig.hear(Notified("U1", Raw(FRAME)))
    assert [len(frames_of(conn)) for conn in (phone, laptop, other)] == [1, 1, 0]


async def test_a_close_closes_all_connections_of_the_user(rig: Rig) -> None:
    mine, other = [rig.connect("U1"), rig.connect("U1")], rig.connect("U2")
    await rig.hear(Closed("U1", CloseCode.KICKED, "spam"))
    assert [close_of(conn) for conn in mine] == [(4002, "spam")] * 2
    assert close_of(other) is None


async def test_a_close_with_ids_closes_those_and_no_others(rig: Rig) -> None:
    old, new = rig.connect("U1"), rig.connect("U1")
    await rig.hear(Closed("U1", CloseCode.REPLACED, "another login", [old.id]))
    assert (close_of(old), close_of(new)) == ((4001, "another login"), None)


async def test_a_close_without_any_id_closes_nothing(rig: Rig) -> None:
    conn = rig.connect("U1")
    await rig.hear(Closed("U1", CloseCode.REPLACED, "another login", []))
    assert close_of(conn) is None


async def test_a_group_that_changed_elsewhere_is_read_anew(rig: Rig) -> None:
    for _ in range(2):
        await rig.membership.members("G1")
    await rig.hear(GroupChanged("G1"))
    await rig.membership.members("G1")
    assert rig.loads == ["G1", "G1"]


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"{}", b'[{"type":"later"}]', b'[{"type":"close","user_id":5}]', b"[" * 5000]
)
async def test_a_word_that_cannot_be_read_is_logged_and_skipped(rig: Rig, payload: bytes) -> None:
    conn = rig.connect("U1")
    with capture_logs() as logs:
        rig.broker.incoming.put_nowait(payload)
        await rig.hear(Notified("U1", Raw(FRAME)))
    assert len(frames_of(conn)) == 1
    assert [entry["log_level"] for entry in logs] == ["error"]


async def test_a_fault_with_one_word_does_not_stop_those_behind_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = rig.connect("U1")

    async def fail(group_id: str) -> frozenset[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(rig.membership, "_load", fail)
    to_group = build_stored(1, receive_id="G1")
    with capture_logs() as logs:
        rig.broker.incoming.put_nowait(encode([Delivered("G1", to_group), Notified("U1", Raw(FRAME))]))
        await until(lambda: rig.peers.received == 1)
    assert len(frames_of(conn)) == 1
    assert [entry["kind"] for entry in logs] == ["Delivered"]


def test_every_word_is_read_as_it_was_written() -> None:
    words: Sequence[Event] = [
        Delivered("U1_U2", Raw(encode(build_stored(1)))), Signalled("U1", Raw(FRAME)), Notified("U1", Raw(FRAME)),
        Closed("U1", 4002, "spam", ["c1"]), Closed("U1", 1000, ""), GroupChanged("G1"), Joined(),
    ]  # fmt: skip
    assert msgspec.json.decode(encode(words), type=list[Event]) == words


# --- to everybody


async def test_a_notice_goes_here_and_elsewhere(rig: Rig) -> None:
    conn = rig.connect("U1")
    rig.peers.notify("U1", FRAME)
    assert len(frames_of(conn)) == 1
    await until(lambda: rig.broker.told("n2") == [Notified("U1", Raw(FRAME))])


async def test_closing_a_user_counts_here_and_elsewhere(rig: Rig) -> None:
    conn = rig.connect("U1")
    rig.directory.connections["U1"] = {"x1", "x2"}
    event = Closed("U1", CloseCode.KICKED, "spam")
    assert await rig.peers.close_user(event) == 3
    assert close_of(conn) == (4002, "spam")
    await until(lambda: rig.broker.told("n2") == [event])


async def test_closing_connections_counts_those_that_were_named(rig: Rig) -> None:
    conn, kept = rig.connect("U1"), rig.connect("U1")
    rig.directory.connections["U1"] = {"x1", "x2"}
    assert await rig.peers.close_user(Closed("U1", CloseCode.KICKED, "spam", [conn.id, "x2"])) == 2
    assert close_of(kept) is None


async def test_a_node_alone_tells_nobody_and_closes_what_is_here() -> None:
    registry = ClientRegistry(100, 10, "allow")
    membership = Membership(lambda group_id: asyncio.sleep(0, None))
    broker = ChannelBroker(1)  # it fails on whatever is forwarded
    peers = Peers(LocalDirectory(), broker, registry, Delivery(registry, membership), membership)
    await peers.start()
    registry.add(conn := build_conn("U1"))
    assert not peers.are_there
    peers.notify("U1", FRAME)
    assert await peers.close_user(Closed("U1", CloseCode.KICKED, "")) == 1
    await peers.tell([(("U1",), noted("U1"))])
    assert close_of(conn) == (4002, "")
    await peers.close()
