"""ChatServer with a real store, broker, registry and delivery: what is accepted is stored once and delivered once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_builders import SQL_ALONE, THROUGH_A_DATABASE, Loop, build_request, identity_of, until, wipe
from sqlalchemy.exc import IntegrityError, OperationalError
from structlog.testing import capture_logs

from kama.errors import Busy, DatabaseFailed, Forbidden, KamaError, NoSuchGroup, RateLimited
from kama.protocol import BadFrame, ChatMessageRequest, MessageType
from kama.server.broker import Record, Stored
from kama.server.cache import HistoryCache, MemoryBackend
from kama.server.channel_broker import ChannelBroker
from kama.server.chat_server import ChatServer
from kama.server.delivery import Delivery
from kama.server.directory import LocalDirectory
from kama.server.limits import TokenBuckets
from kama.server.membership import Membership
from kama.server.peers import Peers
from kama.server.registry import ClientRegistry
from kama.server.snowflake import Snowflake
from kama.server.store.database import Database
from kama.server.store.groups import GroupStore
from kama.server.store.logged import LoggedDatabase
from kama.server.store.logged_messages import LoggedMessages
from kama.server.store.messages import Batch, MessageStore
from kama.server.tasks import spawn

SDP = json.dumps({"messageId": "PROXY", "type": "sdp"})
START_CALL = json.dumps({"messageId": "PROXY", "type": "start_call"})


class Conn:
    """The socket side of a connection: it keeps what it is offered."""

    id = "c1"
    address = ""
    depth = 0
    post_only = False
    closing: tuple[int, str] | None = None

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.got: list[dict[str, Any]] = []
        self.signals: list[dict[str, Any]] = []
        self.has_room = True

    def offer(self, back: Any) -> None:
        if back.is_shown_to(self.user_id):
            self.got.append(json.loads(back.frame))

    def offer_ephemeral(self, frame: bytes) -> bool:
        if self.has_room:
            self.signals.append(json.loads(frame))
        return self.has_room

    @property
    def contents(self) -> list[str]:
        return [message["content"] for message in self.got]


class Store(MessageStore):
    """A real store, which fails when told to: the next times, or for good with one content."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.failures: list[Exception] = []
        self.poison = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def insert_batch(self, records: Sequence[Record]) -> Batch:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.poison and any(record.request.content == self.poison for record in records):
            raise IntegrityError("INSERT", {}, Exception("poison"))
        return await super().insert_batch(records)


class LoggedStore(Store, LoggedMessages):
    pass


class House:
    """A ChatServer and all that it talks to."""

    def __init__(self, database: Database, *, size: int = 100, rate: float = 0, timeout: float = 5) -> None:
        self.store = LoggedStore(database) if isinstance(database, LoggedDatabase) else Store(database)
        self.groups = GroupStore(database)
        self.broker = ChannelBroker(size)
        self.registry = ClientRegistry(100, 8, "allow")
        self.membership = Membership(self.groups.member_ids)
        self.cache = HistoryCache(MemoryBackend(60, 100))
        self.delivery = Delivery(self.registry, self.membership)
        self.server = ChatServer(
            self.broker,
            self.store,
            self.delivery,
            Peers(LocalDirectory(), self.broker, self.registry, self.delivery, self.membership),
            self.membership,
            self.cache,
            Snowflake(1),
            TokenBuckets(rate, 2),
            file_max_size=100,
            publish_timeout=timeout,
        )
        self.settled: list[tuple[str, Stored | KamaError]] = []

    def login(self, user_id: str) -> Conn:
        conn = Conn(user_id)
        self.registry.add(conn)  # type: ignore[arg-type]
        return conn

    async def send(self, send_id: str = "U1", receive_id: str = "U2", **fields: Any) -> Record:
        request = build_request(send_id, receive_id, **fields)
        return await self.server.accept(request, identity_of(send_id), self.settle)

    def send_now(self, send_id: str = "U1", receive_id: str = "U2", **fields: Any) -> bool:
        request = build_request(send_id, receive_id, **fields)
        return self.server.accept_now(request, identity_of(send_id), self.settle)

    def settle(self, record: Record, outcome: Stored | KamaError) -> None:
        self.settled.append((record.request.content, outcome))

    async def idle(self) -> None:
        await until(lambda: self.server.depth == 0)

    async def contents(self, conversation: str = "U1_U2") -> list[str]:
        return [message.content for message in (await self.store.history(conversation, 100)).messages]


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    made = House(database)
    await made.server.start()
    yield made
    await made.server.close(timeout=5)


# --- the way of a message


async def test_a_message_reaches_both_ends_and_the_store_and_is_settled(house: House) -> None:
    sender, receiver, other = house.login("U1"), house.login("U2"), house.login("U3")
    record = await house.send(content="hello", client_msg_id="c")
    await house.idle()
    assert (sender.contents, receiver.contents, other.contents) == (["hello"], ["hello"], [])
    assert await house.contents() == ["hello"]
    assert house.settled == [("hello", Stored(record.uuid, "U1_U2", 1))]
    assert receiver.got[0]["uuid"] == str(record.uuid)


async def test_every_connection_of_a_user_gets_it(house: House) -> None:
    """KamaChat defect 4: a second login left the first one deaf."""
    phone, laptop = house.login("U2"), house.login("U2")
    await house.send()
    await house.idle()
    assert (phone.contents, laptop.contents) == (["hello"], ["hello"])


async def test_a_note_to_oneself_comes_once(house: House) -> None:
    """KamaChat defect 13: it was delivered twice."""
    conn = house.login("U1")
    await house.send("U1", "U1")
    await house.idle()
    assert conn.contents == ["hello"]


async def test_a_group_message_reaches_every_member_and_no_one_else(house: House) -> None:
    await house.groups.create("G1", "U1", ["U2", "U3"], "")
    conns = [house.login(f"U{number}") for number in (1, 2, 3, 4)]
    await house.send("U2", "G1")
    await house.idle()
    assert [conn.contents for conn in conns] == [["hello"], ["hello"], ["hello"], []]


async def test_a_message_to_somebody_who_never_came_waits_in_the_store(house: House) -> None:
    await house.send("U1", "U999")
    await house.idle()
    assert await house.contents("U1_U999") == ["hello"]


async def test_a_senders_messages_keep_their_order(house: House) -> None:
    receiver = house.login("U2")
    for number in range(200):
        await house.send(content=str(number))
    await house.idle()
    assert receiver.contents == [str(number) for number in range(200)]
    assert [message["seq"] for message in receiver.got] == list(range(1, 201))


async def test_under_load_many_messages_share_a_transaction(house: House) -> None:
    """KamaChat defect 32: an insert and an update or more for each message."""
    house.store.gate.clear()
    for _ in range(50):
        await house.send()
    house.store.gate.set()
    await house.idle()
    counters = house.server.counters
    assert (counters.stored, counters.batches <= 2, counters.largest_batch >= 49) == (50, True, True)


@SQL_ALONE
async def test_the_cached_history_follows(house: House) -> None:
    await house.cache.start()
    await house.send(content="first")
    await house.idle()
    house.cache.fill("U1_U2", await house.store.history("U1_U2", 10))
    await house.send(content="second")
    await house.idle()
    await until(lambda: house.cache.depth == 0)
    kept = await house.cache.read("U1_U2", 2)
    assert kept is not None
    assert [message.content for message in kept] == ["first", "second"]
    await house.cache.close()


async def test_the_same_client_msg_id_again_is_stored_and_delivered_once(house: House) -> None:
    """KamaChat defect 11: a retry was another message."""
    receiver = house.login("U2")
    first = await house.send(client_msg_id="c")
    await house.idle()
    await house.send(client_msg_id="c")
    await house.idle()
    assert receiver.contents == ["hello"]
    assert [outcome for _, outcome in house.settled] == [
        Stored(first.uuid, "U1_U2", 1),
        Stored(first.uuid, "U1_U2", 1, duplicate=True),
    ]
    assert (house.server.counters.stored, house.server.counters.duplicates) == (1, 1)


# --- call signals


async def test_an_ephemeral_signal_reaches_the_receiver_only_and_is_not_stored(house: House) -> None:
    sender, receiver = house.login("U1"), house.login("U2")
    await house.send(type=MessageType.AUDIO_OR_VIDEO, content="", av_data=SDP)
    await until(lambda: bool(receiver.signals))
    assert (sender.signals, sender.got, receiver.got) == ([], [], [])
    assert receiver.signals[0]["av_data"] == SDP
    assert await house.contents() == []
    assert house.server.counters.ephemeral == 1
    assert [outcome.seq for _, outcome in house.settled if isinstance(outcome, Stored)] == [0], "and it was told of"


async def test_a_stored_signal_is_not_echoed(house: House) -> None:
    sender, receiver = house.login("U1"), house.login("U2")
    await house.send(type=MessageType.AUDIO_OR_VIDEO, content="", av_data=START_CALL)
    await house.idle()
    assert (len(sender.got), len(receiver.got)) == (0, 1)
    assert len(await house.contents()) == 1


async def test_a_signal_that_reaches_nobody_is_counted(house: House) -> None:
    house.login("U2").has_room = False
    await house.send(type=MessageType.AUDIO_OR_VIDEO, content="", av_data=SDP)
    await house.send("U1", "U9", type=MessageType.AUDIO_OR_VIDEO, content="", av_data=SDP)
    await house.idle()
    assert house.delivery.ephemeral_dropped == 2


async def test_signals_keep_their_place_between_messages(house: House) -> None:
    order: list[str] = []
    conn = house.login("U2")
    conn.offer = lambda back: order.append("message")  # type: ignore[method-assign]
    conn.offer_ephemeral = lambda frame: bool(order.append("signal")) or True  # type: ignore[method-assign]
    house.store.gate.clear()
    await house.send()
    await house.send(type=MessageType.AUDIO_OR_VIDEO, content="", av_data=SDP)
    await house.send()
    house.store.gate.set()
    await house.idle()
    assert order == ["message", "signal", "message"]


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"send_id": "U9"}, Forbidden, "send_id"),
        ({"content": "x" * 101}, BadFrame, "content"),
        ({"content": "", "av_data": "x" * 101}, BadFrame, "av_data"),
        ({"content": "x" * 51, "av_data": "x" * 50}, BadFrame, "content"),
        ({"receive_id": "G404"}, NoSuchGroup, "receive_id"),
        ({"receive_id": "G1"}, Forbidden, "receive_id"),
        ({"receive_id": "G1", "type": 3, "content": "", "av_data": "{}"}, BadFrame, "receive_id"),
        ({"type": 3, "content": "", "av_data": "nonsense"}, BadFrame, "av_data"),
    ],
)
async def test_what_may_not_be_sent_is_refused_by_field(
    house: House, changes: dict[str, Any], error: type[KamaError], field: str
) -> None:
    """KamaChat defects 20 and 22: the sender and the membership were not checked."""
    await house.groups.create("G1", "U7", [], "")
    fields: dict[str, Any] = {"type": 0, "content": "hello", "send_id": "U1", "receive_id": "U2", **changes}
    with pytest.raises(error) as caught:
        await house.server.accept(ChatMessageRequest(**fields), identity_of("U1"), house.settle)
    assert caught.value.field == field
    assert (house.server.depth, house.server.counters.accepted, house.settled) == (0, 0, [])


@pytest.mark.parametrize("fields", [{}, {"type": 3, "av_data": '{"messageId":"PROXY","type":"candidate"}'}])
async def test_a_long_batch_lets_others_have_their_turn(
    house: House, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr("kama.server.consumer._YIELD_EVERY", 2)
    loop, happened = asyncio.get_running_loop(), []

    def settle(_record: Record, _outcome: Stored | KamaError) -> None:
        if not happened:
            loop.call_soon(happened.append, "another's turn")
        happened.append("settled")

    for _ in range(4):
        assert house.server.accept_now(build_request(**fields), identity_of("U1"), settle)
    await until(lambda: len(happened) == 5)
    assert happened[-1] == "settled"


async def test_a_message_exactly_as_long_as_allowed_passes(house: House) -> None:
    await house.send(content="ü" * 100)


async def test_an_admin_may_send_for_somebody_else(house: House) -> None:
    await house.server.accept(build_request("U1", "U2"), identity_of("U9", "admin"), house.settle)
    await house.idle()
    assert await house.contents() == ["hello"]


async def test_who_left_a_group_may_not_send_to_it(house: House) -> None:
    await house.groups.create("G1", "U1", ["U2"], "")
    await house.send("U2", "G1")
    async with house.membership.change("G1"):
        await house.groups.change("G1", [], ["U2"])
    with pytest.raises(Forbidden, match="U2 is not a member of G1"):
        await house.send("U2", "G1")


async def test_too_many_messages_are_refused_with_the_time_to_wait(database: Database) -> None:
    """KamaChat defect 25: there was no limit."""
    house = House(database, rate=1)
    await house.server.start()
    await house.send()
    await house.send()
    with pytest.raises(RateLimited) as caught:
        await house.send()
    assert 0 < caught.value.retry_after <= 1
    await house.send("U2", "U1")
    assert house.server.counters.rate_limited == 1
    await house.server.close(timeout=5)


async def test_a_refused_message_costs_no_token(database: Database) -> None:
    house = House(database, rate=1)
    for _ in range(5):
        with pytest.raises(BadFrame):
            await house.send(content="x" * 101)
    await house.send()
    await house.server.close(timeout=0)


async def test_when_the_queue_is_full_the_sender_is_told_to_try_again(database: Database) -> None:
    house = House(database, size=1, timeout=0.01)
    await house.send(content="first")
    with pytest.raises(Busy):
        await house.send(content="second")
    assert house.server.counters.accepted == 1
    await house.server.start()
    await house.idle()
    assert await house.contents() == ["first"]
    await house.server.close(timeout=5)


# --- accepted without waiting


async def test_what_is_accepted_now_is_stored_delivered_and_settled(house: House) -> None:
    receiver = house.login("U2")
    assert house.send_now(content="hello", client_msg_id="c")
    await house.idle()
    assert receiver.contents == await house.contents() == ["hello"]
    assert [content for content, _ in house.settled] == ["hello"]
    assert house.server.counters.accepted == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"content": "x" * 101}, BadFrame), ({"type": 3, "av_data": "no JSON"}, BadFrame)],
    ids=["too long", "no signal"],
)
async def test_what_may_not_be_sent_is_refused_now(
    house: House, fields: dict[str, Any], error: type[KamaError]
) -> None:
    with pytest.raises(error):
        house.send_now(**fields)


async def test_for_a_group_that_is_not_in_memory_it_has_to_wait(house: House) -> None:
    await house.groups.create("G1", "U1", ["U2"], "")
    assert not house.send_now("U1", "G1")
    assert house.server.depth == 0
    await house.membership.members("G1")
    assert house.send_now("U1", "G1")
    with pytest.raises(Forbidden, match="not a member"):
        house.send_now("U3", "G1")


async def test_a_message_that_has_to_wait_takes_no_token_yet(database: Database) -> None:
    house = House(database, size=1, rate=0.001, timeout=0.01)
    assert house.send_now(content="first")
    for _ in range(3):
        assert not house.send_now(content="waits")
    await house.server.start()
    await house.idle()
    assert house.send_now(content="second")
    with pytest.raises(RateLimited):
        house.send_now(content="third")
    assert house.server.counters.rate_limited == 1
    await house.idle()
    assert await house.contents() == ["first", "second"]
    await house.server.close(timeout=5)


# --- a store that fails


def down() -> OperationalError:
    return OperationalError("INSERT", {}, Exception("disk I/O error"))


async def test_while_the_store_fails_nothing_is_delivered_or_settled_and_then_all_is(house: House) -> None:
    """KamaChat defect 9: a failed insert was logged, and the message delivered all the same."""
    receiver = house.login("U2")
    house.store.failures = [down() for _ in range(3)]
    with capture_logs() as logs:
        await house.send(content="a")
        await until(lambda: house.server.counters.store_failures >= 2)
        assert (receiver.got, house.settled, house.server.store_failing) == ([], [], True)
        await house.send(content="b")
        await house.idle()
    assert receiver.contents == ["a", "b"]
    assert [message["seq"] for message in receiver.got] == [1, 2]
    assert (house.server.store_failing, len(house.settled)) == (False, 2)
    assert {entry["event"] for entry in logs} == {"batch not stored: trying again"}


async def test_one_message_that_can_never_be_stored_does_not_hold_up_the_others(house: House) -> None:
    receiver = house.login("U2")
    house.store.poison = "poison"
    house.store.gate.clear()
    with capture_logs() as logs:
        for content in ("a", "poison", "b", "c"):
            await house.send(content=content)
        house.store.gate.set()
        await house.idle()
    assert receiver.contents == await house.contents() == ["a", "b", "c"]
    outcomes = dict(house.settled)
    assert isinstance(outcomes.pop("poison"), DatabaseFailed)
    assert [outcome.seq for outcome in outcomes.values() if isinstance(outcome, Stored)] == [1, 2, 3]
    assert house.server.counters.not_stored == 1
    assert "poison" not in str([{**entry, "error": ""} for entry in logs])


async def test_a_fault_with_one_message_does_not_stop_those_behind_it(house: House) -> None:
    broken, receiver = house.login("U2"), house.login("U3")
    broken.offer = None  # type: ignore[assignment, method-assign]
    with capture_logs() as logs:
        await house.send(receive_id="U2", content="meets a fault")
        await house.send(receive_id="U3", content="goes on")
        await house.idle()
    assert receiver.contents == ["goes on"]
    assert await house.contents() == ["meets a fault"], "it is stored, and waits for the next login"
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["message not handed out"]


async def test_a_collision_with_another_nodes_insert_is_looked_up_once_more(house: House) -> None:
    house.store.failures = [IntegrityError("INSERT", {}, Exception("unique"))]
    await house.send(content="stored by the second try")
    await house.idle()
    assert await house.contents() == ["stored by the second try"]
    assert isinstance(house.settled[0][1], Stored)


async def test_members_that_cannot_be_read_delay_the_delivery_and_do_not_end_it(house: House) -> None:
    await house.groups.create("G1", "U1", ["U2"], "")
    receiver = house.login("U2")
    house.store.gate.clear()
    await house.send("U1", "G1")
    house.membership.forget("G1")
    members, failures = house.membership.members, [down(), down()]

    async def failing(group_id: str) -> frozenset[str] | None:
        if failures:
            raise failures.pop()
        return await members(group_id)

    house.membership.members = failing  # type: ignore[method-assign]
    with capture_logs() as logs:
        house.store.gate.set()
        await house.idle()
    assert receiver.contents == ["hello"]
    assert [entry["event"] for entry in logs] == ["message not delivered: trying again"] * 2


# --- without a connection


async def test_a_caller_without_a_connection_waits_until_it_is_stored(house: House) -> None:
    stored = await house.server.accept_and_wait(build_request(client_msg_id="c"), identity_of("U1"))
    assert (stored.conversation, stored.seq, stored.duplicate) == ("U1_U2", 1, False)
    again = await house.server.accept_and_wait(build_request(client_msg_id="c"), identity_of("U1"))
    assert (again.uuid, again.seq, again.duplicate) == (stored.uuid, 1, True)


async def test_a_caller_is_told_that_it_cannot_be_stored(house: House) -> None:
    house.store.poison = "hello"
    with capture_logs(), pytest.raises(DatabaseFailed, match="nobody got it"):
        await house.server.accept_and_wait(build_request(), identity_of("U1"))


async def test_a_caller_does_not_wait_for_ever(database: Database) -> None:
    house = House(database, timeout=0.02)
    with pytest.raises(Busy, match="same client_msg_id"):
        await house.server.accept_and_wait(build_request(), identity_of("U1"))
    await house.server.close(timeout=0)


async def test_a_caller_with_an_ephemeral_signal_is_answered_without_a_seq(house: House) -> None:
    request = build_request(type=MessageType.AUDIO_OR_VIDEO, content="", av_data=SDP)
    stored = await house.server.accept_and_wait(request, identity_of("U1"))
    assert (stored.conversation, stored.seq) == ("U1_U2", 0)


# --- the end


async def test_closing_stores_and_delivers_what_was_taken(database: Database) -> None:
    """KamaChat defect 17: a shutdown dropped what was queued."""
    house = House(database)
    receiver = house.login("U2")
    await house.server.start()
    for number in range(20):
        await house.send(content=str(number))
    await house.server.close(timeout=5)
    assert receiver.contents == [str(number) for number in range(20)]
    assert (len(house.settled), house.server.is_consuming) == (20, False)
    with pytest.raises(Busy):
        await house.send()


async def test_closing_is_not_held_up_by_a_store_that_fails_and_what_is_lost_was_never_settled(
    database: Database,
) -> None:
    house = House(database)
    await house.server.start()
    house.store.failures = [down() for _ in range(10**4)]
    with capture_logs():
        await house.send()
        async with asyncio.timeout(5):
            await house.server.close(timeout=0.05)
            await house.server.close(timeout=0.05)
    assert (house.settled, await house.contents()) == ([], [])


# --- any mix


plans = st.lists(
    st.tuples(st.sampled_from(["U1", "U2", "U3"]), st.sampled_from(["U1", "U2", "G1"]), st.sampled_from("abc")),
    max_size=25,
)


def test_whatever_is_sent_is_settled_once_stored_once_and_delivered_once_in_order(loop: Loop) -> None:
    """With repeats, failures of the store, and senders that race each other."""

    @settings(THROUGH_A_DATABASE, max_examples=40)
    @given(plans, st.integers(0, 1), st.integers(1, 5))
    def check(plan: list[tuple[str, str, str]], failures: int, size: int) -> None:
        loop.run(play(loop.database, plan, failures, size))

    check()


async def play(database: Database, plan: list[tuple[str, str, str]], failures: int, size: int) -> None:
    await wipe(database)
    house = House(database, size=size)
    await house.groups.create("G1", "U1", ["U2", "U3"], "")
    conns = {user: house.login(user) for user in ("U1", "U2", "U3")}
    house.store.failures = [down() for _ in range(failures)]
    await house.server.start()
    with capture_logs():
        senders = [
            spawn(house.send(sender, receiver, client_msg_id=name, content=name), name="sender")
            for sender, receiver, name in plan
        ]
        await asyncio.gather(*senders)
        await house.idle()
    first = {(sender, name) for sender, _, name in plan}
    assert len(house.settled) == len(plan)
    assert house.server.counters.stored == len(first)
    assert sum(not outcome.duplicate for _, outcome in house.settled if isinstance(outcome, Stored)) == len(first)
    for user, conn in conns.items():
        uuids = [message["uuid"] for message in conn.got]
        assert len(uuids) == len(set(uuids))
        seqs: dict[str, list[int]] = {}
        for message in conn.got:
            pair = tuple(sorted((message["send_id"], message["receive_id"])))
            seqs.setdefault("G1" if message["receive_id"] == "G1" else str(pair), []).append(message["seq"])
            assert message["receive_id"] == "G1" or user in pair
        assert all(found == list(range(1, len(found) + 1)) for found in seqs.values())
    await house.server.close(timeout=5)
