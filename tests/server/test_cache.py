"""The history cache: one contract for both backends, and reads that always equal the store."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server_builders import (
    SQL_ALONE,
    THROUGH_A_DATABASE,
    Loop,
    build_record,
    build_stored,
    messages_in,
    progress_in,
    until,
)

from kama.protocol import Message, MessageStatus
from kama.server.cache import CacheBackend, Change, HistoryCache, HistoryReader, MemoryBackend, Snapshot
from kama.server.cache_redis import RedisBackend
from kama.server.store.database import Database
from kama.server.store.logged import LoggedDatabase
from kama.server.store.logged_messages import LoggedMessages
from kama.server.store.messages import History, MessageStore
from kama.server.store.progress import Progress
from kama.server.tasks import cancel, spawn

MakeBackend = Callable[..., CacheBackend]
BOTH = ["memory", pytest.param("redis", marks=pytest.mark.redis)]
MAX = 4
_pairs = (f"U{uuid.uuid4().hex[:8]}{number}" for number in itertools.count())


@pytest.fixture(params=BOTH)
def make_backend(request: pytest.FixtureRequest) -> MakeBackend:
    """One of the backends. Tests use conversations of their own: a shared Redis is not emptied."""
    if request.param == "memory":
        return lambda ttl=60.0: MemoryBackend(ttl, MAX)
    url = request.getfixturevalue("redis_url")
    return lambda ttl=60.0: RedisBackend(url, ttl, MAX)


@pytest.fixture
async def backend(make_backend: MakeBackend) -> AsyncIterator[CacheBackend]:
    made = make_backend()
    yield made
    await made.close()


@pytest.fixture
def key() -> str:
    return f"U0_{next(_pairs)}"


def stored(*seqs: int, status: int = 0) -> list[Message]:
    return [build_stored(seq, status=status) for seq in seqs]


def seqs_of(snapshot: Snapshot | None) -> tuple[int, list[int]] | None:
    return None if snapshot is None else (snapshot.version, [message.seq for message in snapshot.messages])


# --- the contract of a backend


async def test_what_was_never_filled_is_not_there(backend: CacheBackend, key: str) -> None:
    assert await backend.read(key) is None


async def test_a_fill_is_read_back(backend: CacheBackend, key: str) -> None:
    messages = [build_stored(1, content="naïve 💬"), build_stored(2, type=3, av_data="{}", client_msg_id="c")]
    await backend.write([Snapshot(key, 7, list(messages))])
    assert await backend.read(key) == Snapshot(key, 7, messages)


async def test_a_change_moves_the_copy_on(backend: CacheBackend, key: str) -> None:
    await backend.write([Snapshot(key, 1, stored(1))])
    await backend.write([Change(key, 2, stored(2)), Change(key, 3, stored(3))])
    assert seqs_of(await backend.read(key)) == (3, [1, 2, 3])


async def test_a_change_makes_no_copy_where_nobody_reads(backend: CacheBackend, key: str) -> None:
    await backend.write([Change(key, 1, stored(1))])
    assert await backend.read(key) is None


async def test_a_change_that_does_not_follow_drops_the_copy(backend: CacheBackend, key: str) -> None:
    """KamaChat defect 28: concurrent appends lost entries and changed their order."""
    await backend.write([Snapshot(key, 1, stored(1)), Change(key, 3, stored(3))])
    assert await backend.read(key) is None


async def test_a_change_that_comes_twice_counts_once(backend: CacheBackend, key: str) -> None:
    await backend.write([Snapshot(key, 1, stored(1)), Change(key, 2, stored(2)), Change(key, 2, stored(2))])
    assert seqs_of(await backend.read(key)) == (2, [1, 2])


async def test_a_late_fill_does_not_replace_a_newer_copy(backend: CacheBackend, key: str) -> None:
    """KamaChat defect 28: a late fill overwrote newer data."""
    await backend.write([Snapshot(key, 1, stored(1)), Change(key, 2, stored(2)), Snapshot(key, 1, stored(1))])
    assert seqs_of(await backend.read(key)) == (2, [1, 2])


async def test_a_newer_fill_replaces_the_copy(backend: CacheBackend, key: str) -> None:
    await backend.write([Snapshot(key, 1, stored(1, 2)), Snapshot(key, 5, stored(8, 9))])
    assert seqs_of(await backend.read(key)) == (5, [8, 9])


async def test_statuses_rise_and_never_fall(backend: CacheBackend, key: str) -> None:
    await backend.write([Snapshot(key, 1, stored(1, 2, status=1))])
    await backend.write([Change(key, 2, statuses={1: 3, 9: 3}), Change(key, 3, statuses={1: 2, 2: 0})])
    snapshot = await backend.read(key)
    assert snapshot is not None
    assert [(message.seq, message.status) for message in snapshot.messages] == [(1, 3), (2, 1)]


async def test_a_fill_forgets_the_statuses_of_the_copy_before(backend: CacheBackend, key: str) -> None:
    await backend.write([Snapshot(key, 1, stored(1)), Change(key, 2, statuses={1: 3}), Snapshot(key, 9, stored(1))])
    snapshot = await backend.read(key)
    assert snapshot is not None
    assert snapshot.messages[0].status == 0


async def test_only_the_newest_messages_are_kept(backend: CacheBackend, key: str) -> None:
    """KamaChat defect 27: the whole conversation was written again for each message."""
    await backend.write([Snapshot(key, 1, stored(*range(1, 10)))])
    assert seqs_of(await backend.read(key)) == (1, [6, 7, 8, 9])
    await backend.write([Change(key, 2, stored(10, 11))])
    assert seqs_of(await backend.read(key)) == (2, [8, 9, 10, 11])


@pytest.mark.parametrize("count", [MAX - 1, MAX, MAX + 1, 3 * MAX])
async def test_a_change_as_large_as_the_copy_leaves_no_hole(backend: CacheBackend, key: str, count: int) -> None:
    await backend.write([Snapshot(key, 1, stored(1, 2, 3, 4)), Change(key, 2, stored(*range(5, 5 + count)))])
    assert seqs_of(await backend.read(key)) == (2, list(range(5 + count - MAX, 5 + count)))


async def test_order_is_by_seq_and_not_by_text(backend: CacheBackend, key: str) -> None:
    await backend.write([Snapshot(key, 1, stored(8, 9)), Change(key, 2, stored(10, 11))])
    assert seqs_of(await backend.read(key)) == (2, [8, 9, 10, 11])


async def test_a_copy_that_nobody_changes_ends(make_backend: MakeBackend, key: str) -> None:
    backend = make_backend(ttl=0.05)
    await backend.write([Snapshot(key, 1, stored(1))])
    async with asyncio.timeout(5):
        while await backend.read(key) is not None:
            await asyncio.sleep(0.01)
    await backend.close()


async def test_conversations_do_not_mix(backend: CacheBackend, key: str) -> None:
    other = f"G{key[3:]}"
    await backend.write([Snapshot(key, 1, stored(1)), Snapshot(other, 4, stored(2)), Change(key, 2, stored(2))])
    assert (seqs_of(await backend.read(key)), seqs_of(await backend.read(other))) == ((2, [1, 2]), (4, [2]))


# --- HistoryReader and HistoryCache


class Counting(MessageStore):
    """A real store, and how often a history was read from it."""

    reads = 0

    async def history(self, *args: Any, **window: Any) -> History:
        self.reads += 1
        return await super().history(*args, **window)


class CountingLogged(Counting, LoggedMessages):
    pass


def counting_store(database: Database) -> Counting:
    return CountingLogged(database) if isinstance(database, LoggedDatabase) else Counting(database)


@pytest.fixture
async def cache(make_backend: MakeBackend) -> AsyncIterator[HistoryCache]:
    made = HistoryCache(make_backend())
    await made.start()
    yield made
    await made.close()


async def settled(cache: HistoryCache) -> None:
    await until(lambda: cache.depth == 0)


async def test_a_second_read_does_not_ask_the_store_for_messages(database: Any, cache: HistoryCache) -> None:
    user = next(_pairs)
    store = counting_store(database)
    reader = HistoryReader(store, cache, MAX)
    await store.insert_batch([build_record("U0", user) for _ in range(3)])
    first = await reader.read(f"U0_{user}", 10)
    await settled(cache)
    assert await reader.read(f"U0_{user}", 10) == first
    assert (store.reads, cache.hits, cache.misses) == (1, 1, 1)


@SQL_ALONE
async def test_a_copy_that_was_kept_up_to_date_is_used(database: Any, cache: HistoryCache) -> None:
    user = next(_pairs)
    key = f"U0_{user}"
    store = counting_store(database)
    reader = HistoryReader(store, cache, MAX)
    await store.insert_batch([build_record("U0", user)])
    await reader.read(key, 10)
    batch = await store.insert_batch([build_record("U0", user)])
    cache.submit(key, batch.versions[key], messages=batch.fresh[key])
    await settled(cache)
    assert [message.seq for message in await reader.read(key, 10)] == [1, 2]
    assert store.reads == 1


async def test_every_window_of_a_conversation_equals_the_stores(database: Any, cache: HistoryCache) -> None:
    """Within the copy, across its older end, past both ends; from a cold cache and from a warm one."""
    user = next(_pairs)
    key = f"U0_{user}"
    store = messages_in(database)
    reader = HistoryReader(store, cache, MAX)
    await store.insert_batch([build_record("U0", user) for _ in range(MAX + 3)])
    seqs = [None, *range(MAX + 5)]
    for limit, before_seq, after_seq in itertools.product((1, MAX, MAX + 1, 50), seqs, seqs):
        window = {"before_seq": before_seq, "after_seq": after_seq}
        expected = (await store.history(key, limit, **window)).messages
        assert list(await reader.read(key, limit, **window)) == expected
        await settled(cache)
    assert cache.hits > 0


async def test_a_copy_of_another_version_is_not_used(cache: HistoryCache, key: str) -> None:
    cache.fill(key, History(1, 5, stored(1)))
    await settled(cache)
    assert await cache.read(key, 6) is None
    assert await cache.read(key, 4) is None
    assert await cache.read(key, 5) == stored(1)


async def test_the_cached_avatar_is_the_stored_one(database: Any, cache: HistoryCache) -> None:
    """KamaChat defect 30: the cache held another path than the database."""
    user = next(_pairs)
    store = messages_in(database)
    reader = HistoryReader(store, cache, MAX)
    await store.insert_batch([build_record("U0", user, send_avatar="https://example.org/static/a.png")])
    for _ in range(2):
        (message,) = await reader.read(f"U0_{user}", 10)
        assert message.send_avatar == "https://example.org/static/a.png"
        await settled(cache)


async def test_an_empty_conversation_asks_nobody(database: Any, cache: HistoryCache) -> None:
    assert await HistoryReader(messages_in(database), cache, MAX).read("U8_U9", 10) == []
    assert (cache.hits, cache.misses) == (0, 0)


class Nowhere:
    """A backend that is away, or one that never gets done."""

    def __init__(self, available: bool) -> None:
        self.available = available
        self.writes = 0

    async def read(self, conversation: str) -> Snapshot | None:
        raise AssertionError("it is away")

    async def write(self, tasks: Sequence[Change | Snapshot]) -> None:
        self.writes += 1
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


async def test_a_full_task_queue_drops_and_counts_instead_of_waiting() -> None:
    cache = HistoryCache(Nowhere(available=True))
    await cache.start()
    for version in range(5000):
        cache.submit("U1_U2", version)
    assert (cache.depth, cache.dropped) == (3000, 2000)
    await cache.close()


async def test_while_the_backend_is_away_nothing_is_queued_or_asked() -> None:
    cache = HistoryCache(Nowhere(available=False))
    cache.submit("U1_U2", 1)
    assert await cache.read("U1_U2", 1) is None
    assert (cache.available, cache.depth, cache.dropped) == (False, 0, 1)


async def test_closing_does_not_wait_for_a_backend_that_hangs() -> None:
    backend = Nowhere(available=True)
    cache = HistoryCache(backend)
    await cache.start()
    cache.submit("U1_U2", 1)
    await until(lambda: backend.writes == 1)
    async with asyncio.timeout(5):
        await cache.close()


async def test_memory_forgets_the_conversations_that_nobody_reads_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kama.server.cache._CONVERSATIONS", 2)
    backend = MemoryBackend(60, MAX)
    await backend.write([Snapshot("a", 1, stored(1)), Snapshot("b", 1, stored(1))])
    await backend.read("a")
    await backend.write([Snapshot("c", 1, stored(1))])
    assert [await backend.read(name) is not None for name in "abc"] == [True, False, True]


# --- any interleaving


class Held:
    """A backend whose writes wait while they are held up, and whose copies can be lost."""

    available = True

    def __init__(self, backend: CacheBackend) -> None:
        self.backend = backend
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, conversation: str) -> Snapshot | None:
        return await self.backend.read(conversation)

    async def write(self, tasks: Sequence[Change | Snapshot]) -> None:
        await self.gate.wait()
        await self.backend.write(tasks)

    async def close(self) -> None:
        await self.backend.close()


seq_or_none = st.none() | st.integers(0, 14)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 6), st.sampled_from([True, True, True, False])),
        st.tuples(
            st.just("mark"), st.integers(1, 14), st.sampled_from([1, 2, 3]), st.sampled_from([True, True, False])
        ),
        st.tuples(st.just("read"), st.integers(1, 6), seq_or_none, seq_or_none),
        st.tuples(st.sampled_from(["hold", "let go", "remember", "fill late", "settle"])),
    ),
    min_size=4,
    max_size=18,
)


def test_a_read_equals_the_store_whatever_happens_between(make_backend: MakeBackend, loop: Loop) -> None:
    """KamaChat defects 27 to 30: changes, lost changes, late fills and reads in any order."""

    async def make() -> Held:
        return Held(make_backend())

    held = loop.run(make())

    @settings(THROUGH_A_DATABASE, max_examples=70)
    @given(steps)
    def check(plan: list[Any]) -> None:
        loop.run(play(loop, held, plan))

    check()
    loop.run(held.close())


async def play(loop: Loop, held: Held, plan: list[Any]) -> None:
    user = next(_pairs)
    key = f"U0_{user}"
    cache = HistoryCache(held)
    worker = spawn(cache._work(), name="worker")
    reader = HistoryReader(loop.messages, cache, MAX)
    progress = progress_in(loop.database)
    remembered = await loop.messages.history(key, MAX)
    for step in [*plan, ("let go",), ("settle",), ("read", 6, None, None), ("settle",), ("read", 6, None, None)]:
        match step:
            case ("send", count, told):
                batch = await loop.messages.insert_batch([build_record("U0", user) for _ in range(count)])
                for moved, version in batch.versions.items():
                    if told:
                        cache.submit(moved, version, messages=batch.fresh[moved])
            case ("mark", seq, status, told):
                statuses = {(user, key, MessageStatus(status)): seq}
                changes, versions = await progress.apply(Progress(receipts=statuses))
                if told and versions:
                    cache.submit(key, versions[key], statuses={change.seq: change.status for change in changes})
            case ("read", limit, before_seq, after_seq):
                window = {"before_seq": before_seq, "after_seq": after_seq}
                expected = await loop.messages.history(key, limit, **window)
                assert list(await reader.read(key, limit, **window)) == expected.messages
            case ("hold",):
                held.gate.clear()
            case ("let go",):
                held.gate.set()
            case ("settle",):
                if held.gate.is_set():
                    await until(lambda: cache.depth == 0)
            case ("remember",):
                remembered = await loop.messages.history(key, MAX)
            case ("fill late",):
                cache.fill(key, remembered)
    await cancel(worker)
