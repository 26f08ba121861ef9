"""A node that lives as long as it is looked at, and made-up people on it: friends, a group, visitors, a slow reader."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kama.chat_client import ChatClient, Dismissed
from kama.client import Frame, NodeClient
from kama.errors import KamaError

# Makes a token: the user, and whether it is for an operator.
Issue = Callable[[str, bool], str]

GROUP = "Gdemo"
_SLOW, _CHATTY = "Udemo_slow", "Udemo_chatty"
_DEVICES = ("ios", "android", "web", "desktop")
_WORDS = (
    "hi",
    "there",
    "what",
    "do",
    "you",
    "think",
    "of",
    "lunch",
    "at",
    "noon",
    "see",
    "the",
    "picture",
    "sure",
    "why",
    "not",
    "later",
    "maybe",
    "tomorrow",
    "ok",
)
_GROUP_SHARE = 0.15
_READ_SHARE = 0.6
_COMES_S, _GOES_S = (2.0, 8.0), (4.0, 15.0)
# Slower than it is written to while somebody sends it long texts; then it has time to catch up.
_SLOW_READ_S, _LONG_SEND_S, _LONG_TEXTS, _QUIET_S = 0.3, 0.06, 120, 90.0
_LONG_TEXT = "a long text, " * 3_000
_START_S = 30.0
_END_S = 10.0
_LOOK_AGAIN_S = 0.05
_LISTENS = re.compile(r"listens on (http://\S+)")


def user_ids(count: int) -> list[str]:
    return [f"Udemo{number:03}" for number in range(1, count + 1)]


class Crowd:
    """`users` people at one node who send `rate` messages a second together. `run` goes on until it is cancelled.

    Raises (from `run`) what the node answers to a login or a message that waiting does not mend.
    """

    def __init__(self, server: str, issue: Issue, users: int, rate: float) -> None:
        self._server = server
        self._issue = issue
        self._users = user_ids(users)
        self._pause = users / rate
        self._random = random.Random()

    async def run(self) -> None:
        await self._make_group()
        visitors = max(1, len(self._users) // 8)
        async with asyncio.TaskGroup() as tasks:
            for user_id in self._users[visitors:]:
                tasks.create_task(_until_dismissed(self._stay(user_id)))
            for user_id in self._users[:visitors]:
                tasks.create_task(_until_dismissed(self._come_and_go(user_id)))
            tasks.create_task(self._read_slowly(_SLOW))
            tasks.create_task(_until_dismissed(self._send_long_texts(_CHATTY, _SLOW)))

    async def _make_group(self) -> None:
        owner, *members = self._users
        async with NodeClient(self._server, lambda: self._issue("Uoperator", True)) as node:
            await node.post("/admin/groups", {"group_id": GROUP, "owner_id": owner, "members": members, "name": "demo"})

    # --- people

    async def _stay(self, user_id: str) -> None:
        """Logged in all the time."""
        async with asyncio.TaskGroup() as tasks:
            client = self._client(user_id, tasks)
            tasks.create_task(client.run())
            await client.wait_caught_up()
            await self._talk(client)

    async def _come_and_go(self, user_id: str) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(*_GOES_S)):
                    await self._stay(user_id)
            await asyncio.sleep(self._random.uniform(*_COMES_S))

    async def _read_slowly(self, user_id: str) -> None:
        """Its queue can be seen to fill up, until the node has had enough of it; then it comes back."""
        while True:
            with contextlib.suppress(KamaError, OSError):
                async with (
                    NodeClient(self._server, self._token(user_id)) as node,
                    node.login(user_id, device="slow-tv", max_queue=1, sock=_small_socket(self._server)) as connection,
                ):
                    while True:
                        await connection.receive()
                        await asyncio.sleep(_SLOW_READ_S)
            await asyncio.sleep(_SLOW_READ_S)

    async def _send_long_texts(self, user_id: str, to: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            client = self._client(user_id, tasks)
            tasks.create_task(client.run())
            await client.wait_caught_up()
            while True:
                for _ in range(_LONG_TEXTS):
                    with contextlib.suppress(KamaError):
                        await client.send(to, _LONG_TEXT)
                    await asyncio.sleep(_LONG_SEND_S)
                await asyncio.sleep(_QUIET_S)

    def _client(self, user_id: str, tasks: asyncio.TaskGroup) -> ChatClient:
        """One that says that it got what it gets, and often that it read it."""

        def take(frame: Frame) -> None:
            if frame["send_id"] != user_id and frame["seq"]:
                is_read = self._random.random() < _READ_SHARE
                tasks.create_task(client.report(frame["uuid"], "read" if is_read else "delivered"))

        device = self._random.choice(_DEVICES)
        client = ChatClient(self._server, user_id, self._token(user_id), take, device=device, unknown="new")
        return client

    async def _talk(self, client: ChatClient) -> None:
        """To a few friends, and now and then to all."""
        friends = self._friends(client.user_id)
        while True:
            await asyncio.sleep(self._random.expovariate(1 / self._pause))
            to = GROUP if self._random.random() < _GROUP_SHARE else self._random.choice(friends)
            words = self._random.choices(_WORDS, k=self._random.randint(1, 12))
            with contextlib.suppress(KamaError):  # too fast, or the node is busy: people try again
                await client.send(to, " ".join(words), send_name=client.user_id.removeprefix("U"))

    def _friends(self, user_id: str) -> Sequence[str]:
        at = self._users.index(user_id)
        return [self._users[(at + step) % len(self._users)] for step in (1, 2, 3) if step < len(self._users)]

    def _token(self, user_id: str) -> Callable[[], str]:
        return lambda: self._issue(user_id, False)


async def _until_dismissed(life: Coroutine[Any, Any, None]) -> None:
    """Whom somebody kicks stays away, as a client should; the others go on."""
    try:
        await life
    except* Dismissed:
        pass


def _small_socket(server: str) -> socket.socket:
    """A connected socket whose system keeps little for it: what it does not read waits at the node."""
    parts = urlsplit(server)
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.connect((parts.hostname, parts.port))  # on this machine: at once, or not at all
    small.setblocking(False)
    return small


# --- the node ------------------------------------------------------------------------------------------


class DemoNode:
    """`kama serve` as a process of its own, in a folder that goes with it: `with DemoNode() as node`.

    It knows nothing of this person's settings. Raises KamaError when it does not come up.
    """

    def __enter__(self) -> DemoNode:
        self._folder = tempfile.TemporaryDirectory(prefix="kama-demo-")
        self.data_dir = Path(self._folder.name)
        log = self.data_dir / "node.log"
        try:
            with log.open("wb") as output:
                # A session of its own: Ctrl-C on the terminal is for us, who then end it in order.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "kama", "serve", "--port", "0", "--data-dir", str(self.data_dir)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                    cwd=self.data_dir, env=_environment(self.data_dir),
                )  # fmt: skip
            self.url = self._wait(log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    @property
    def secret(self) -> str:
        """What it checks tokens with."""
        return (self.data_dir / "secret").read_text(encoding="ascii").strip()

    def _wait(self, log: Path) -> str:
        deadline = time.monotonic() + _START_S
        while not (found := _LISTENS.search(told := log.read_text(errors="replace"))):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise KamaError(f"the node of the demo did not start: {told.strip()[-300:] or 'it said nothing'}")
            time.sleep(_LOOK_AGAIN_S)
        return found[1]


def _environment(folder: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("KAMA_")}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), own.get("PYTHONPATH"))))
    return own | {"XDG_CONFIG_HOME": str(folder), "PYTHONPATH": path}
