"""UserConn over a socket of our own making: what it writes, in which order, and what it says was sent."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from structlog.testing import capture_logs
from support import eventually

from kama.errors import CloseCode
from kama.protocol import ChatMessageRequest, build_message
from kama.server.auth import Identity
from kama.server.message_back import MessageBack, message_back
from kama.server.send_queue import ConnLimits
from kama.server.tasks import spawn
from kama.server.websocket import SocketOwner
from kama.server.ws_gateway import UserConn

US, THEM = "U1", "U2"
WELCOME = b'{"type":"system","event":"welcome"}'


def payloads_of(frames: bytes) -> Iterator[bytes]:
    """Of unmasked frames, one after the other (RFC 6455, section 5.2)."""
    while frames:
        size, start = frames[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(frames[2:start], "big")
        yield frames[start : start + size]
        frames = frames[start + size :]


class FakeSocket:
    """Takes everything at once, unless `can_write` is false; `holds` keeps what is written in the process."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.owner: SocketOwner | None = None
        self.is_held = True
        self.waiting: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.ended: tuple[int, str] | None = None
        self.holds = False
        self.writes = 0
        self.held = 0
        self.cut_off = False
        self._can_write = True

    @property
    def can_write(self) -> bool:
        return self._can_write

    @can_write.setter
    def can_write(self, value: bool) -> None:
        was, self._can_write = self._can_write, value
        if value and not was and self.owner is not None:
            self.owner.on_writable()

    @property
    def unsent(self) -> int | None:
        return None if self.cut_off else self.held

    def receive(self, data: bytes) -> None:
        """The peer says something."""
        self.waiting.append(data)
        self._go_on()

    def listen(self, owner: SocketOwner) -> None:
        self.owner = owner
        self.release()

    def hold(self) -> None:
        self.is_held = True

    def release(self) -> None:
        self.is_held = False
        self._go_on()

    def _go_on(self) -> None:
        while self.waiting and not self.is_held and self.owner is not None:
            self.owner.on_frame(self.waiting.pop(0))

    def end(self, code: int, reason: str) -> None:
        """The peer leaves."""
        self.ended = (code, reason)
        assert self.owner is not None
        self.owner.on_end()

    def write_frames(self, frames: Sequence[bytes]) -> int | None:
        if self.closed is not None:
            return None
        self.frames += map(json.loads, frames)
        if self.holds:
            self.held += sum(len(frame) + 4 for frame in frames)
        return self.unsent

    def write_made(self, frames: bytes) -> int | None:
        self.writes += 1
        return self.write_frames(list(payloads_of(frames)))

    def close_now(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = (code, reason)

    def seqs(self, send_id: str = THEM) -> list[int]:
        return [frame["seq"] for frame in self.frames if frame.get("send_id") == send_id]


def back(seq: int, send_id: str = THEM, receive_id: str = US, content: str = "x") -> MessageBack:
    request = ChatMessageRequest(type=0, send_id=send_id, receive_id=receive_id, content=content)
    key = "_".join(sorted((send_id, receive_id)))
    return message_back(key, build_message(request, seq, seq, 0))


class FakeBacklog:
    """A store with one conversation per peer of `US`; a page takes a few turns of the loop to read."""

    def __init__(self) -> None:
        self.stored: dict[str, list[MessageBack]] = {}
        self.cursors: dict[str, int] = {}
        self.tells_at_once = False

    def store(self, *messages: MessageBack) -> None:
        for message in messages:
            self.stored.setdefault(message.conversation, []).append(message)

    async def positions(self, user_id: str) -> list[tuple[str, int, int]]:
        await asyncio.sleep(0)
        return self._positions()

    def positions_now(self, user_id: str) -> list[tuple[str, int, int]] | None:
        return self._positions() if self.tells_at_once else None

    def _positions(self) -> list[tuple[str, int, int]]:
        return [(key, self.cursors.get(key, 0), kept[-1].seq) for key, kept in self.stored.items()]

    async def page(self, conversation: str, after_seq: int, limit: int) -> list[MessageBack]:
        for _ in range(3):
            await asyncio.sleep(0)
        return [message for message in self.stored[conversation] if message.seq > after_seq][:limit]


class Rig:
    """A running connection and everything around it."""

    def __init__(self, limits: ConnLimits | None = None, post_only: bool = False) -> None:
        self.socket = FakeSocket()
        self.backlog = FakeBacklog()
        self.sent: list[tuple[int, int]] = []
        self.ended: list[UserConn] = []
        self.received: list[bytes] = []
        self.conn = UserConn(
            id="c1",
            identity=Identity(US, "user", 2e9),
            socket=self.socket,
            welcome=WELCOME,
            backlog=self.backlog,
            limits=limits or ConnLimits(),
            sent=lambda user_id, message, up_to, conn_id: self.sent.append((message.seq, up_to)),
            closed=self.ended.append,
            post_only=post_only,
        )

    def on_frame(self, conn: UserConn, data: bytes) -> None:
        self.received.append(data)

    @asynccontextmanager
    async def running(self, *, caught_up: bool = True) -> AsyncIterator[Rig]:
        self.conn.start(self.on_frame)
        try:
            if caught_up:
                await eventually(lambda: self.conn.post_only or self.has_event("caught_up"))
            yield self
        finally:
            self.conn.close(CloseCode.NORMAL)
            self.socket.can_write = True
            await eventually(lambda: self.conn._filling is None)

    def has_event(self, event: str) -> bool:
        return any(frame.get("event") == event for frame in self.socket.frames)


def offer_stored(rig: Rig, *messages: MessageBack) -> None:
    """As the node does it: committed first, then offered."""
    rig.backlog.store(*messages)
    for message in messages:
        rig.conn.offer(message)


async def test_the_welcome_comes_first_and_the_backlog_before_what_is_live() -> None:
    rig = Rig()
    rig.backlog.store(back(1), back(2))
    async with rig.running(caught_up=False):
        offer_stored(rig, back(3))
        await eventually(lambda: rig.socket.seqs() == [1, 2, 3])
        await eventually(lambda: rig.has_event("caught_up"))
    events = [frame.get("event") or frame["seq"] for frame in rig.socket.frames]
    assert events == ["welcome", 1, 2, 3, "caught_up"]


async def test_who_has_missed_nothing_is_told_together_with_the_welcome() -> None:
    rig = Rig()
    rig.backlog.tells_at_once = True
    rig.backlog.store(back(1), back(2))
    rig.backlog.cursors["U1_U2"] = 2
    async with rig.running(caught_up=False):
        assert [frame["event"] for frame in rig.socket.frames] == ["welcome", "caught_up"]
        assert rig.socket.frames[1]["positions"] == {"U1_U2": 2} and rig.socket.frames[1]["complete"]
        assert (rig.socket.writes, rig.conn._filling) == (1, None)
        assert rig.conn.counters.written == 1, "of the two, what a client waits for counts"
        offer_stored(rig, back(2), back(3))
        assert rig.socket.seqs() == [3]


@pytest.mark.parametrize("sent", [0, 1])
async def test_who_has_missed_something_gets_it_before_being_told(sent: int) -> None:
    rig = Rig()
    rig.backlog.tells_at_once = True
    rig.backlog.store(back(1), back(2))
    rig.backlog.cursors["U1_U2"] = sent
    async with rig.running():
        events = [frame.get("event") or frame["seq"] for frame in rig.socket.frames]
        assert events == ["welcome", *range(sent + 1, 3), "caught_up"]


async def test_what_came_before_the_start_is_not_forgotten() -> None:
    """A connection is known to all before it is started."""
    rig = Rig()
    rig.backlog.tells_at_once = True
    offer_stored(rig, back(1))
    rig.backlog.cursors["U1_U2"] = 1  # another connection of the user's took it
    async with rig.running():
        assert not rig.conn.pushed.is_behind
        offer_stored(rig, back(2))
        await eventually(lambda: rig.socket.seqs() == [2])


async def test_the_first_message_of_a_turn_goes_out_at_once_and_the_others_together() -> None:
    async with Rig().running() as rig:
        rig.socket.frames.clear()
        writes = rig.socket.writes
        offer_stored(rig, *map(back, range(1, 6)))
        assert rig.socket.seqs() == [1]
        await eventually(lambda: rig.socket.seqs() == [1, 2, 3, 4, 5])
        assert rig.socket.writes - writes == 2
        offer_stored(rig, back(6))
        assert rig.socket.seqs()[-1] == 6
        assert [seq for seq, _ in rig.sent] == [1, 2, 3, 4, 5, 6]


async def test_an_echo_that_an_ack_follows_goes_out_together_with_it() -> None:
    async with Rig().running() as rig:
        writes = rig.socket.writes
        echo = replace(back(1), send_id=US, receive_id=THEM, has_client_id=True)
        offer_stored(rig, echo)
        rig.conn.offer_control(b'{"type":"ack"}')
        assert rig.socket.writes == writes
        await eventually(lambda: rig.socket.frames[-1] == {"type": "ack"})
        assert rig.socket.writes == writes + 1


async def test_a_message_that_was_pushed_is_not_pushed_again() -> None:
    async with Rig().running() as rig:
        offer_stored(rig, back(1), back(2))
        for message in (back(1), back(2), back(2)):
            rig.conn.offer(message)
        offer_stored(rig, back(3))
        await eventually(lambda: 3 in rig.socket.seqs())
        assert rig.socket.seqs() == [1, 2, 3]


async def test_a_gap_is_read_from_the_store_before_what_comes_after_it() -> None:
    async with Rig().running() as rig:
        offer_stored(rig, back(1))
        rig.backlog.store(back(2), back(3))
        offer_stored(rig, back(4))
        await eventually(lambda: rig.socket.seqs() == [1, 2, 3, 4])


@pytest.mark.parametrize("turns", range(8))
async def test_what_comes_while_a_gap_is_being_read_is_not_forgotten(turns: int) -> None:
    async with Rig().running() as rig:
        offer_stored(rig, back(1))
        rig.backlog.store(back(2), back(3))
        offer_stored(rig, back(4))
        for _ in range(turns):
            await asyncio.sleep(0)
        offer_stored(rig, back(5))
        await eventually(lambda: rig.socket.seqs() == [1, 2, 3, 4, 5])


async def test_a_conversation_that_grows_with_every_look_into_the_store_is_caught_up_with() -> None:
    """Whoever only read on would never end: there is always something that came meanwhile."""
    rig = Rig()
    rig.backlog.store(back(1), back(2))
    read, newest, looks = rig.backlog.page, itertools.count(3), itertools.count(1)

    async def page(conversation: str, after_seq: int, limit: int) -> list[MessageBack]:
        found = await read(conversation, after_seq, limit)
        if next(looks) <= 50:
            offer_stored(rig, *(back(next(newest)) for _ in range(10)))
        return found

    rig.backlog.page = page  # type: ignore[method-assign]
    async with rig.running():
        told = rig.socket.seqs()
        assert told == list(range(1, len(told) + 1))
        assert next(looks) < 5


async def test_what_is_kept_while_it_catches_up_is_bounded_and_the_rest_is_read() -> None:
    rig = Rig(ConnLimits(messages=4))
    rig.backlog.store(back(1))
    rig.socket.can_write = False
    async with rig.running(caught_up=False):
        offer_stored(rig, *map(back, range(2, 40)))
        assert rig.conn._catch_up is not None and len(rig.conn._catch_up._kept) == 4
        rig.socket.can_write = True
        rig.conn.on_writable()
        await eventually(lambda: rig.has_event("caught_up"))
        assert rig.socket.seqs() == list(range(1, 40))


async def test_a_connection_that_looks_again_finds_what_it_was_not_told_of() -> None:
    """As when this node could not be reached by the one that stored."""
    async with Rig().running() as rig:
        offer_stored(rig, back(1))
        rig.backlog.store(back(2), back(3), back(1, send_id="U3"))
        await rig.conn.resync()
        await eventually(lambda: rig.socket.seqs() == [1, 2, 3] and rig.socket.seqs("U3") == [1])
        offer_stored(rig, back(4))
        await eventually(lambda: rig.socket.seqs() == [1, 2, 3, 4])


async def test_a_connection_that_looks_again_is_not_given_anything_twice() -> None:
    async with Rig().running() as rig:
        offer_stored(rig, back(1), back(2))
        await rig.conn.resync()
        await rig.conn.resync()
        rig.conn.offer(back(2))
        offer_stored(rig, back(3))
        await eventually(lambda: 3 in rig.socket.seqs())
        assert rig.socket.seqs() == [1, 2, 3]


async def test_a_connection_that_only_posts_has_nothing_to_look_for() -> None:
    async with Rig(post_only=True).running() as rig:
        rig.backlog.store(back(1))
        await rig.conn.resync()
        await asyncio.sleep(0)
        assert rig.socket.seqs() == []


@pytest.mark.parametrize("turns", range(8))
async def test_what_was_passed_by_during_the_catch_up_is_found_by_a_resync(turns: int) -> None:
    rig = Rig()
    rig.backlog.store(back(1))
    async with rig.running(caught_up=False):
        for _ in range(turns):
            await asyncio.sleep(0)
        rig.backlog.store(back(2))
        await rig.conn.resync()
        await eventually(lambda: rig.socket.seqs() == [1, 2])


async def test_past_the_resume_limit_the_client_is_told_to_pull_and_live_messages_go_on() -> None:
    rig = Rig(ConnLimits(resume=3))
    rig.backlog.store(*map(back, range(1, 11)))
    async with rig.running():
        caught_up = rig.socket.frames[-1]
        assert caught_up["complete"] is False
        assert caught_up["behind"] == [{"conversation": "U1_U2", "after_seq": 3, "last_seq": 10}]
        offer_stored(rig, back(11))
        await eventually(lambda: rig.socket.seqs() == [1, 2, 3, 11])


async def test_the_cursor_stays_at_a_gap_until_pulls_have_filled_it() -> None:
    rig = Rig(ConnLimits(resume=2))
    rig.backlog.store(*map(back, range(1, 6)))
    async with rig.running():
        offer_stored(rig, back(6))
        for seq in (4, 3, 4, 5):
            message = build_message(ChatMessageRequest(type=0, send_id=THEM, receive_id=US), seq, seq, 0)
            await rig.conn.push(message_back("U1_U2", message, pulled=True))
        offer_stored(rig, back(7))
        await eventually(lambda: len(rig.sent) == 8)
    assert [up_to for _, up_to in rig.sent if up_to] == [1, 2, 3, 4, 6, 7]


async def test_a_peer_that_takes_nothing_is_closed_as_slow_when_its_queue_is_full() -> None:
    async with Rig(ConnLimits(messages=5)).running() as rig:
        rig.socket.can_write = False
        offer_stored(rig, *map(back, range(1, 6)))
        assert rig.conn.closing is None
        offer_stored(rig, back(6))
        assert rig.conn.closing == (CloseCode.SLOW_CONSUMER, "send-back queue full")
        assert rig.sent == []
        assert rig.conn.queue.high_water == 5


async def test_the_queue_is_bounded_in_bytes_as_well() -> None:
    async with Rig(ConnLimits(bytes=2000)).running() as rig:
        rig.socket.can_write = False
        offer_stored(rig, back(1, content="x" * 1000))
        assert rig.conn.closing is None
        offer_stored(rig, back(2, content="x" * 1000))
        assert rig.conn.closing is not None


async def test_one_message_larger_than_the_bound_still_goes_out() -> None:
    async with Rig(ConnLimits(bytes=100)).running() as rig:
        offer_stored(rig, back(1, content="x" * 1000))
        await eventually(lambda: rig.socket.seqs() == [1])


async def test_a_burst_within_one_turn_does_not_make_a_reading_peer_slow() -> None:
    async with Rig(ConnLimits(messages=5)).running() as rig:
        offer_stored(rig, *map(back, range(1, 101)))
        await eventually(lambda: rig.socket.seqs() == list(range(1, 101)))
        assert rig.conn.closing is None


async def test_what_the_process_still_holds_is_not_sent_until_it_is_out() -> None:
    async with Rig().running() as rig:
        rig.socket.holds = True
        offer_stored(rig, back(1), back(2))
        await eventually(lambda: rig.socket.seqs() == [1, 2])
        assert rig.sent == []
        rig.socket.held = len(back(2).frame)
        await eventually(lambda: rig.sent == [(1, 1)])
        rig.socket.held = 0
        await eventually(lambda: rig.sent == [(1, 1), (2, 2)])


async def test_what_a_cut_off_connection_held_was_never_sent() -> None:
    async with Rig().running() as rig:
        rig.socket.holds = True
        offer_stored(rig, back(1))
        await eventually(lambda: rig.socket.seqs() == [1])
        rig.socket.cut_off = True
        rig.socket.held = 0
        rig.conn.close(CloseCode.GOING_AWAY)
        assert rig.sent == []


async def test_call_signals_are_dropped_from_half_full_on_and_messages_are_not() -> None:
    async with Rig(ConnLimits(messages=4)).running() as rig:
        rig.socket.can_write = False
        assert rig.conn.offer_ephemeral(b"{}")
        offer_stored(rig, back(1))
        assert not rig.conn.offer_ephemeral(b"{}")
        offer_stored(rig, back(2), back(3))
        assert rig.conn.closing is None
        assert rig.conn.counters.dropped == 1


@pytest.mark.parametrize("limits", [ConnLimits(messages=6), ConnLimits(bytes=1000)], ids=["frames", "bytes"])
async def test_an_answer_waits_while_the_queue_is_half_full(limits: ConnLimits) -> None:
    """In frames or in bytes: what a client asked for may not be what closes it."""
    async with Rig(limits).running() as rig:
        rig.socket.can_write = False
        answering = spawn(push_all(rig, count=20), name="answer")
        await eventually(lambda: rig.conn.depth == 3)
        await turns(5)
        assert (rig.conn.depth, rig.conn.closing) == (3, None)
        rig.socket.can_write = True
        await answering
        await eventually(lambda: len(rig.socket.frames) == 2 + 20)  # after the two of its login


async def push_all(rig: Rig, count: int) -> None:
    for number in range(count):
        await rig.conn.push(b'{"number":%d,"filler":"%s"}' % (number, b"x" * 150))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_close_decides_and_is_told_once() -> None:
    async with Rig().running() as rig:
        rig.conn.close(CloseCode.KICKED, "go")
        rig.conn.close(CloseCode.NORMAL, "later")
        rig.conn.offer(back(1))
        rig.conn.offer_control(b"{}")
    assert rig.socket.closed == (CloseCode.KICKED, "go")
    assert rig.ended == [rig.conn]
    assert rig.socket.seqs() == []


async def test_what_is_queued_goes_out_before_the_close_frame() -> None:
    async with Rig().running() as rig:
        offer_stored(rig, back(1))
        rig.conn.close(CloseCode.KICKED)
    assert rig.socket.seqs() == [1]


async def test_a_connection_that_only_posts_gets_its_echo_and_nothing_else_and_sends_nothing() -> None:
    async with Rig(post_only=True).running() as rig:
        offer_stored(rig, back(1), back(2, send_id=US, receive_id=THEM))
        await eventually(lambda: rig.socket.seqs(US) == [2])
    assert rig.socket.seqs() == []
    assert rig.sent == []


async def test_a_store_that_fails_at_login_sends_the_client_away_to_come_back() -> None:
    rig = Rig()

    async def fail(user_id: str) -> list[tuple[str, int, int]]:
        raise OSError("disk gone")

    rig.backlog.positions = fail  # type: ignore[method-assign]
    async with rig.running(caught_up=False):
        await eventually(lambda: rig.socket.closed)
    assert rig.socket.closed is not None
    assert rig.socket.closed[0] == CloseCode.GOING_AWAY
    assert "retry_after_ms" in json.loads(rig.socket.closed[1])


async def test_a_fault_of_ours_closes_with_1011() -> None:
    rig = Rig()

    def fail(conn: UserConn, data: bytes) -> None:
        raise RuntimeError("a bug")

    rig.conn.start(fail)
    with capture_logs() as logs:
        rig.socket.receive(b"{}")
    assert rig.socket.closed is not None
    assert rig.socket.closed[0] == CloseCode.INTERNAL_ERROR
    assert "a bug" in repr([entry.get("exc_info") for entry in logs])


async def test_a_fault_of_ours_while_something_is_waited_for_closes_with_1011() -> None:
    rig = Rig()

    async def fail() -> None:
        raise RuntimeError("a bug")

    rig.conn.start(lambda conn, data: fail())
    rig.socket.receive(b"{}")
    await eventually(lambda: rig.socket.closed)
    assert rig.socket.closed is not None
    assert rig.socket.closed[0] == CloseCode.INTERNAL_ERROR


async def test_what_comes_while_a_frame_is_waited_for_comes_after_it() -> None:
    rig = Rig()
    gate = asyncio.Event()

    async def wait(data: bytes) -> None:
        await gate.wait()
        rig.received.append(data)

    def on_frame(conn: UserConn, data: bytes) -> Coroutine[Any, Any, None] | None:
        return wait(data) if data == b"slow" else rig.on_frame(conn, data)

    rig.conn.start(on_frame)
    for data in (b"1", b"slow", b"2", b"slow", b"3"):
        rig.socket.receive(data)
    assert rig.received == [b"1"]
    gate.set()
    await eventually(lambda: rig.received == [b"1", b"slow", b"2", b"slow", b"3"])
    assert not rig.socket.is_held


async def test_while_nothing_is_to_be_waited_for_a_connection_has_no_task() -> None:
    async with Rig().running() as rig:
        await eventually(lambda: rig.conn._filling is None)
        before = asyncio.all_tasks()
        rig.socket.receive(b"{}")
        offer_stored(rig, back(1))
        assert asyncio.all_tasks() == before
        await eventually(lambda: rig.sent == [(1, 1)])
        assert asyncio.all_tasks() == before


async def test_why_the_peer_left_is_on_record() -> None:
    rig = Rig()
    rig.conn.start(rig.on_frame)
    rig.socket.end(CloseCode.TOO_LARGE, "frame too large")
    assert rig.conn.closing == (CloseCode.TOO_LARGE, "frame too large")


async def test_a_sender_finds_the_signal_it_sent_in_no_push_but_its_cursor_moves_past_it() -> None:
    request = ChatMessageRequest(type=3, send_id=US, receive_id=THEM, av_data="{}")
    signal = message_back("U1_U2", build_message(request, 1, 1, 0))
    async with Rig().running() as rig:
        offer_stored(rig, signal)
        await eventually(lambda: rig.sent == [(1, 1)])
        assert rig.socket.seqs(US) == []


# --- any interleaving ----------------------------------------------------------------------------------

Step = Callable[[Rig, dict[str, int]], None]
PEERS = ("U2", "U3")


def commit(rig: Rig, offered: dict[str, int], peer: str) -> None:
    kept = rig.backlog.stored.setdefault("_".join(sorted((US, peer))), [])
    kept.append(back(len(kept) + 1, send_id=peer))


def deliver(rig: Rig, offered: dict[str, int], peer: str) -> None:
    """The next committed message that was not offered yet."""
    kept = rig.backlog.stored.get("_".join(sorted((US, peer))), [])
    if offered[peer] < len(kept):
        rig.conn.offer(kept[offered[peer]])
        offered[peer] += 1


def redeliver(rig: Rig, offered: dict[str, int], peer: str) -> None:
    if offered[peer]:
        rig.conn.offer(rig.backlog.stored["_".join(sorted((US, peer)))][offered[peer] - 1])


def skip(rig: Rig, offered: dict[str, int], peer: str) -> None:
    """A delivery that never came, as when another node took over."""
    kept = rig.backlog.stored.get("_".join(sorted((US, peer))), [])
    offered[peer] = min(offered[peer] + 1, len(kept))


def block(rig: Rig, offered: dict[str, int], peer: str) -> None:
    rig.socket.can_write = False


def unblock(rig: Rig, offered: dict[str, int], peer: str) -> None:
    rig.socket.can_write = True


ACTIONS = (commit, commit, deliver, deliver, redeliver, skip, block, unblock)
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(PEERS), st.integers(0, 6)), max_size=40)


async def play(program: list[tuple[Any, str, int]], before: int, cursor: int) -> tuple[Rig, dict[str, int]]:
    """Runs the program and gives what came of it, with the last seq of each peer that must have come."""
    rig = Rig(ConnLimits(messages=10_000))
    offered = dict.fromkeys(PEERS, 0)
    for peer in PEERS:
        for _ in range(before):
            commit(rig, offered, peer)
        offered[peer] = before
        if before:
            rig.backlog.cursors["_".join(sorted((US, peer)))] = min(cursor, before)
    due = dict(offered)
    async with rig.running(caught_up=False):
        for action, peer, turns in program:
            before_it = offered[peer]
            action(rig, offered, peer)
            if action is deliver and offered[peer] > before_it:
                due[peer] = offered[peer]
            for _ in range(turns):
                await asyncio.sleep(0)
        rig.socket.can_write = True
        await eventually(lambda: rig.has_event("caught_up"), seconds=5)
        await eventually(
            lambda: all((rig.socket.seqs(peer) or [min(cursor, before)])[-1] >= due[peer] for peer in PEERS),
            seconds=5,
        )
    return rig, due


@given(program=steps, before=st.integers(0, 4), cursor=st.integers(0, 4))
@settings(max_examples=200, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_each_conversation_reaches_a_connection_in_order_once_and_whole(
    program: list[tuple[Any, str, int]], before: int, cursor: int
) -> None:
    rig, due = asyncio.run(play(program, before, cursor))
    for peer in PEERS:
        seqs = rig.socket.seqs(peer)
        first = min(cursor, before) + 1
        assert seqs == list(range(first, first + len(seqs)))
        assert due[peer] < first + len(seqs)


async def test_who_joined_a_group_while_connected_sees_it_from_the_first_message_after_that() -> None:
    async with Rig().running() as rig:
        offer_stored(rig, *(replace(back(seq), conversation="G1") for seq in (7, 8)))
        await eventually(lambda: rig.socket.seqs() == [7, 8])


async def test_what_of_a_group_came_between_joining_and_the_first_live_message_is_read() -> None:
    """As when the node that stored it had not heard yet who has joined."""
    async with Rig().running() as rig:
        rig.backlog.cursors["G1"] = 6
        rig.backlog.store(*(replace(back(seq), conversation="G1") for seq in (5, 6, 7)))
        offer_stored(rig, replace(back(8), conversation="G1"))
        await eventually(lambda: rig.socket.seqs() == [7, 8])


async def test_a_group_that_another_device_was_sent_already_begins_with_its_first_live_message() -> None:
    async with Rig().running() as rig:
        rig.backlog.cursors["G1"] = 8
        rig.backlog.store(replace(back(7), conversation="G1"))
        offer_stored(rig, replace(back(8), conversation="G1"))
        await eventually(lambda: rig.socket.seqs() == [8])


async def test_the_first_message_of_a_new_group_waits_for_nothing() -> None:
    async with Rig().running() as rig:
        offer_stored(rig, replace(back(1), conversation="G1"))
        assert rig.socket.seqs() == [1]


async def test_a_connection_that_looks_again_finds_what_a_group_has_since_its_user_joined() -> None:
    async with Rig().running() as rig:
        rig.backlog.cursors["G1"] = 6
        rig.backlog.store(*(replace(back(seq), conversation="G1") for seq in (6, 7)))
        await rig.conn.resync()
        await eventually(lambda: rig.socket.seqs() == [7])
