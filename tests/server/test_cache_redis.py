"""RedisBackend against a real Redis: its keys, foreign data under them, and a Redis that goes away and comes back."""

from __future__ import annotations

import shutil
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from server_builders import build_stored, until
from structlog.testing import capture_logs

from kama.protocol import encode
from kama.server.cache import Change, Snapshot
from kama.server.cache_redis import RedisBackend, cache_key

pytestmark = pytest.mark.redis


@pytest.fixture
def key() -> str:
    return f"U0_U{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    made = Redis.from_url(redis_url)
    yield made
    await made.aclose()


@pytest.fixture
async def backend(redis_url: str) -> AsyncIterator[RedisBackend]:
    made = RedisBackend(redis_url, 60, 10)
    yield made
    await made.close()


def test_keys_are_kamachats() -> None:
    assert cache_key("U1_U2") == "message_list_U1_U2"
    assert cache_key("G1") == "group_messagelist_G1"


async def test_a_copy_lives_for_the_ttl_and_a_change_renews_it(backend: RedisBackend, client: Redis, key: str) -> None:
    await backend.write([Snapshot(key, 1, [build_stored(1)])])
    assert 59_000 < await client.pttl(cache_key(key)) <= 60_000
    await client.pexpire(cache_key(key), 1000)
    await backend.write([Change(key, 2, [build_stored(2)])])
    assert 59_000 < await client.pttl(cache_key(key)) <= 60_000


async def test_a_change_costs_the_same_however_long_the_conversation(
    backend: RedisBackend, client: Redis, key: str
) -> None:
    """KamaChat defect 27: it read and wrote the whole array. Here other messages' fields are left as they are."""
    await backend.write([Snapshot(key, 1, [build_stored(1), build_stored(2)])])
    await client.hset(cache_key(key), "1", b"untouched")
    await backend.write([Change(key, 2, [build_stored(3)], {2: 1})])
    fields = await client.hgetall(cache_key(key))
    assert fields == {
        b"v": b"2", b"1": b"untouched", b"2": encode(build_stored(2)), b"3": encode(build_stored(3)), b"s2": b"1",
    }  # fmt: skip


async def test_two_nodes_share_a_copy(redis_url: str, backend: RedisBackend, key: str) -> None:
    other = RedisBackend(redis_url, 60, 10)
    await backend.write([Snapshot(key, 1, [build_stored(1)])])
    await other.write([Change(key, 2, [build_stored(2)])])
    snapshot = await backend.read(key)
    assert snapshot is not None
    assert (snapshot.version, len(snapshot.messages)) == (2, 2)
    await other.close()


async def test_what_kamachat_cached_under_the_key_is_no_copy_and_no_outage(
    backend: RedisBackend, client: Redis, key: str
) -> None:
    await client.set(cache_key(key), b'[{"send_id":"U0"}]')
    with capture_logs() as logs:
        assert await backend.read(key) is None
        await backend.write([Change(key, 1, [build_stored(1)])])
        assert await backend.read(key) is None
        await backend.write([Snapshot(key, 2, [build_stored(1)])])
    assert await backend.read(key) == Snapshot(key, 2, [build_stored(1)])
    assert backend.available
    assert logs == []


@pytest.mark.parametrize("garbage", [b"{}", b"\xff", b'{"seq":1}', b""])
async def test_a_copy_that_cannot_be_read_is_no_copy(
    backend: RedisBackend, client: Redis, key: str, garbage: bytes
) -> None:
    await backend.write([Snapshot(key, 1, [build_stored(1)])])
    await client.hset(cache_key(key), "1", garbage)
    assert await backend.read(key) is None
    assert backend.available


async def test_a_copy_with_a_version_that_is_no_number_is_no_copy(
    backend: RedisBackend, client: Redis, key: str
) -> None:
    await client.hset(cache_key(key), "v", b"new")
    assert await backend.read(key) is None


async def test_scripts_survive_a_redis_that_forgot_them(backend: RedisBackend, client: Redis, key: str) -> None:
    await backend.write([Snapshot(key, 1, [build_stored(1)])])
    await client.script_flush()
    await backend.write([Change(key, 2, [build_stored(2)])])
    snapshot = await backend.read(key)
    assert snapshot is not None
    assert snapshot.version == 2


# --- away and back


class Server:
    """A Redis of this test alone, on a port that stays the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            ["redis-server", *where, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path, redis_url: str) -> Iterator[Server]:
    """Only where the other tests have their Redis: one switch for all."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on the PATH")
    made = Server(tmp_path)
    yield made
    made.kill()


async def test_redis_may_go_away_and_come_back(server: Server, key: str) -> None:
    backend = RedisBackend(server.url, 60, 10)
    server.start()
    with capture_logs() as logs:
        await backend.read(key)
        await until(lambda: backend.available)
        await backend.write([Snapshot(key, 1, [build_stored(1)])])
        assert await backend.read(key) is not None
        logs.clear()

        server.kill()
        for _ in range(3):
            assert await backend.read(key) is None
            await backend.write([Change(key, 2, [build_stored(2)])])
        assert not backend.available

        server.start()
        await until(lambda: backend.available, timeout=20)
    assert [entry["log_level"] for entry in logs] == ["warning", "info"], "one warning, and one word that it is back"
    await backend.write([Snapshot(key, 3, [build_stored(3)])])
    assert await backend.read(key) == Snapshot(key, 3, [build_stored(3)])
    await backend.close()


async def test_closing_while_redis_is_away_ends_the_probe(server: Server, key: str) -> None:
    backend = RedisBackend(server.url, 60, 10)
    assert await backend.read(key) is None
    assert not backend.available
    await backend.close()
    assert backend._probe is None or backend._probe.done()
