"""History while Redis is killed, away, and back: always right, and one warning."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import RunningNode, StartNode, eventually

pytestmark = pytest.mark.redis


class OwnRedis:
    """A redis-server of this test alone, on a port that it keeps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port)) as client:
                    client.sendall(b"PING\r\n")
                    if client.recv(100).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true" or os.environ.get("KAMA_TEST_REQUIRE_SERVICES") == "1":
            pytest.fail("needs redis-server")
        pytest.skip("needs redis-server")
    redis = OwnRedis(tmp_path)
    redis.start()
    yield redis
    redis.kill()


async def _cached(node: RunningNode) -> None:
    await eventually(lambda: not node.node.cache.depth)


async def test_history_is_right_while_redis_is_killed_away_and_back(
    start_node: StartNode, own_redis: OwnRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    node = await start_node(redis={"url": own_redis.url})
    cache = node.node.cache
    async with node.login("U1") as sender:

        async def say_and_read(content: str) -> None:
            before = len(sender.messages)
            await sender.say("U2", content)
            expected = [message["content"] for message in await sender.wait_for_many(before + 1)]
            await _cached(node)
            for _ in range(2):
                assert [message["content"] for message in await node.history("U1", "U2")] == expected
                await _cached(node)

        await say_and_read("with Redis")
        assert cache.hits > 0
        own_redis.kill()
        await say_and_read("Redis was killed")
        await eventually(lambda: not cache.available)
        await say_and_read("Redis is away")
        health = (await node.request("GET", "/health/ready")).json()
        assert (health["status"], health["checks"]["cache"][:8]) == ("ready", "degraded")
        own_redis.start()
        await eventually(lambda: cache.available)
        await say_and_read("Redis is back")
        hits = cache.hits
        await say_and_read("and used")
        assert cache.hits > hits
    printed = capsys.readouterr().out
    assert printed.count("Redis does not answer") == 1
    assert printed.count("Redis is back") == 1


async def test_a_node_starts_without_its_redis_and_uses_it_when_it_comes(
    start_node: StartNode, own_redis: OwnRedis
) -> None:
    own_redis.kill()
    node = await start_node(redis={"url": own_redis.url})
    async with node.login("U1") as sender:
        await sender.say("U2")
        await sender.wait_for_many(1)
        assert len(await node.history("U1", "U2")) == 1
        own_redis.start()
        await eventually(lambda: node.node.cache.available)
        for _ in range(2):
            assert len(await node.history("U1", "U2")) == 1
            await _cached(node)
        assert node.node.cache.hits == 1
