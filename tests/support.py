"""Real parts for tests: nodes behind uvicorn, nodes as processes of their own, and a plain WebSocket client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kama.server.app import Node, build_app
from kama.server.auth import Role, TokenKeeper
from kama.server.node_server import NodeServer, server_config
from kama.server.store.logged import LoggedDatabase
from kama.settings import Settings

SECRET = "a secret of the tests, as long as its algorithm wants"
KEEPER = TokenKeeper(SECRET)
Frame = dict[str, Any]

# Limits that no test runs into by accident; whoever tests one sets it.
DEFAULTS: dict[str, dict[str, Any]] = {
    "limits": {"messages_per_second": 0},
    "server": {"port": 0, "websocket": os.environ.get("KAMA_TEST_WEBSOCKET", "auto")},
}


def token(user_id: str, role: Role = "user", ttl: float = 300) -> str:
    return KEEPER.issue(user_id, ttl, role)


def bearer(user_id: str, role: Role = "user") -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user_id, role)}"}


def make_settings(folder: Path, **sections: dict[str, Any]) -> Settings:
    """Settings for a node that keeps its data in `folder`."""
    values: dict[str, dict[str, Any]] = {"store": {"url": f"sqlite+aiosqlite:///{folder / 'kama.db'}"}}
    for source in (DEFAULTS, sections):
        for section, content in source.items():
            values.setdefault(section, {}).update(content)
    return Settings.model_validate(values)


async def eventually(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """What the condition gives once it is true; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)
    return found


# --- services ------------------------------------------------------------------------------------------


def service(variable: str) -> str:
    """Where a real service is. A full run must not do without it, another one skips what needs it."""
    url = os.environ.get(variable)
    if url:
        return url
    if os.environ.get("CI") == "true" or os.environ.get("KAMA_TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{variable} is not set")
    pytest.skip(f"{variable} is not set: run `make test`, or set it")


@contextlib.contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """An empty database of the test's own on a real PostgreSQL, dropped after."""
    name = f"test_{uuid.uuid4().hex}"
    _in_postgres(server, f"CREATE DATABASE {name}")
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    _in_postgres(server, f"DROP DATABASE {name} WITH (FORCE)")


def _in_postgres(server: str, statement: str) -> None:
    async def execute() -> None:
        engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.exec_driver_sql(statement)
        await engine.dispose()

    # In a thread of its own, which gives back what it raises: the test's loop is not a fixture's.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, execute()).result()


# --- nodes ---------------------------------------------------------------------------------------------


class _Server(NodeServer):
    """Several of them live in one test process: signals are pytest's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Looks ten times as often as uvicorn whether it is to end, as each of some hundred tests waits for that."""
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)


@dataclass(frozen=True)
class Refusal:
    """`body` is the envelope."""

    status: int
    headers: Mapping[str, str]
    body: Frame


class RunningNode:
    """A node behind uvicorn in this process."""

    def __init__(self, node: Node, server: uvicorn.Server, port: int) -> None:
        self.node = node
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def login(self, user_id: str, **options: Any) -> Peer:
        return Peer(self.url, user_id, **options)

    async def refusal(self, user_id: str, **options: Any) -> Refusal:
        """The answer to a login that the node refuses before there is a WebSocket."""
        try:
            async with self.login(user_id, ready=False, **options):
                raise AssertionError("the login was not refused")
        except InvalidStatus as refused:
            answer = refused.response
            return Refusal(answer.status_code, answer.headers, json.loads(answer.body or b"null"))

    async def request(self, method: str, path: str, **details: Any) -> httpx2.Response:
        # There is no TLS here, and reading the certificates takes longer than the request.
        async with httpx2.AsyncClient(base_url=self.url, trust_env=False, verify=False) as client:
            return await client.request(method, path, **details)

    async def history(self, one: str, two: str, **query: Any) -> list[Frame]:
        params = {"userOneId": one, "userTwoId": two, **query}
        answer = await self.request("GET", "/message/getMessageList", params=params, headers=bearer(one))
        data: list[Frame] = answer.json()["data"]
        return data

    async def noted(self, user_id: str, conversation: str, seq: int) -> None:
        """Until the node has noted that everything up to `seq` was sent to the user."""
        async with asyncio.timeout(10):
            while not any(
                position.conversation == conversation and position.sent_seq >= seq
                for position in await self.node.progress.positions(user_id)
            ):
                await asyncio.sleep(0.01)

    async def create_group(self, group_id: str, owner: str, *members: str) -> None:
        body = {"group_id": group_id, "owner_id": owner, "members": list(members)}
        answer = await self.request("POST", "/admin/groups", json=body, headers=bearer("Uadmin", "admin"))
        assert answer.status_code == 200, answer.text

    def stop(self) -> None:
        self.server.should_exit = True


StartNode = Callable[..., Awaitable[RunningNode]]


@contextlib.asynccontextmanager
async def running_node(settings: Settings) -> AsyncIterator[RunningNode]:
    with socket.create_server(("127.0.0.1", settings.server.port), backlog=2048) as listener:
        port = listener.getsockname()[1]
        node = Node(settings, KEEPER, name=f"127.0.0.1:{port}")
        await node.start()
        started = asyncio.Event()
        server = _Server(server_config(build_app(node), settings), node, started.set)
        task = asyncio.get_running_loop().create_task(server.serve([listener]))
        try:
            await asyncio.wait_for(started.wait(), 10)
            yield RunningNode(node, server, port)
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, 30)


@contextlib.contextmanager
def full_disk(node: RunningNode) -> Iterator[None]:
    """For a while there is no room for what the node logs: nothing that comes now can be accepted."""
    database = node.node.database
    assert isinstance(database, LoggedDatabase)
    assert database.log._file is not None
    number = database.log._file.fileno()
    kept, full = os.dup(number), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, number, inheritable=False)
    try:
        yield
    finally:
        os.dup2(kept, number, inheritable=False)
        os.close(kept)
        os.close(full)


@contextlib.contextmanager
def standing_still(pid: int, database: Path) -> Iterator[None]:
    """The process that folds a log into this database does nothing for a while, and locks nobody out of it."""
    deadline = time.monotonic() + 10
    os.kill(pid, signal.SIGSTOP)
    while not _can_be_written(database):
        assert time.monotonic() < deadline, "waited in vain"
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.005)
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _can_be_written(database: Path) -> bool:
    with contextlib.closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
    return True


@contextlib.asynccontextmanager
async def without_messages(folder: Path) -> AsyncIterator[None]:
    """The node's database fails for a while, for who reads and for who folds the log: its messages are away."""

    def rename(old: str, new: str) -> None:
        with contextlib.closing(sqlite3.connect(folder / "kama.db", timeout=10, isolation_level=None)) as database:
            database.execute(f"ALTER TABLE {old} RENAME TO {new}")

    # In a thread: the node that may hold a transaction needs this loop to end it.
    await asyncio.to_thread(rename, "message", "message_away")
    try:
        yield
    finally:
        await asyncio.to_thread(rename, "message_away", "message")


class NodeProcess:
    """`kama serve` as a process of its own, with its data in `folder`; `start` may be called again after an end."""

    def __init__(self, folder: Path, port: int = 0, **environment: str) -> None:
        self._folder = folder
        self._port = port
        self._environment = {
            "KAMA_AUTH__SECRET": SECRET,
            "KAMA_LIMITS__MESSAGES_PER_SECOND": "0",
            "KAMA_SERVER__WEBSOCKET": DEFAULTS["server"]["websocket"],
            **environment,
        }
        self._process: subprocess.Popen[str] | None = None
        self.log = folder / "node.log"
        self.url = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Until it listens. A port of 0 is chosen once and kept, so that clients find it again."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "kama", "serve", "--port", str(self._port), "--data-dir", str(self._folder)]
        with self.log.open("a") as log:
            at = log.tell()
            self._process = subprocess.Popen(
                command, env={**os.environ, **self._environment}, stdout=log, stderr=log, text=True
            )
        deadline = time.monotonic() + 30
        while not (found := re.search(r"listens on (http://\S+)", self.log.read_text()[at:])):
            assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self.url = found[1]
        self._port = int(self.url.rpartition(":")[2])

    @property
    def children(self) -> list[int]:
        """The processes that it has started, by their ids."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def __enter__(self) -> NodeProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


# --- a client that is not ours -------------------------------------------------------------------------


def small_socket(url: str) -> socket.socket:
    """A connected socket whose receive buffer is as small as the system allows."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = re.match(r"ws://([^:/]+):(\d+)", url).groups()  # type: ignore[union-attr]
    plain.connect((host, int(port)))
    plain.setblocking(False)
    return plain


def text_message(send_id: str, receive_id: str, content: str = "hello", **more: Any) -> Frame:
    return {"type": 0, "send_id": send_id, "receive_id": receive_id, "content": content, **more}


def new_id() -> str:
    return uuid.uuid4().hex


class Peer:
    """A WebSocket client without any cleverness: it keeps the frames in the order in which they came.

    `async with node.login("U1") as peer` waits until the node has caught it up. A `frozen` one reads nothing
    until `thaw`, and has the system keep as little as it can.
    """

    def __init__(
        self,
        url: str,
        user_id: str,
        *,
        ready: bool = True,
        frozen: bool = False,
        headers: dict[str, str] | None = None,
        subprotocols: Sequence[str] | None = None,
        **query: str,
    ) -> None:
        parameters = httpx2.QueryParams({"client_id": user_id, **query})
        self.user_id = user_id
        self._url = f"ws{url.removeprefix('http')}/wss?{parameters}"
        self._headers = bearer(user_id) if headers is None else headers
        self._subprotocols: Any = subprotocols
        self._ready = ready and not frozen
        self._frozen = frozen
        self.frames: list[Frame] = []
        self.closed: tuple[int, str] | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Peer:
        options: dict[str, Any] = {"compression": None, "max_size": None, "proxy": None, "close_timeout": 1}
        if self._frozen:
            options |= {"max_queue": 1, "ping_interval": None, "sock": small_socket(self._url)}
        self.socket: ClientConnection = await connect(
            self._url, additional_headers=self._headers, subprotocols=self._subprotocols, **options
        )
        if not self._frozen:
            self.thaw()
        if self._ready:
            await self.wait_for(lambda frame: frame.get("event") == "caught_up" or "post_only" in self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._frozen:
            self.socket.transport.abort()
            return
        await self.socket.close()
        await asyncio.wait([self._reader])

    def thaw(self) -> None:
        self._frozen = False
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            async for data in self.socket:
                self.frames.append(json.loads(data))
                self._changed.set()
        except ConnectionClosed:
            pass
        self.closed = (self.socket.close_code or 1006, self.socket.close_reason or "")
        self._changed.set()

    async def send(self, frame: Any) -> None:
        """A frame as JSON; str and bytes go out as they are."""
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def say(self, receive_id: str, content: str = "hello", **more: Any) -> None:
        await self.send(text_message(self.user_id, receive_id, content, **more))

    @property
    def messages(self) -> list[Frame]:
        """The chat messages among the frames."""
        return [frame for frame in self.frames if isinstance(frame.get("type"), int)]

    def of_type(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame.get("type") == kind]

    async def wait_for(self, wanted: Callable[[Frame], bool], seconds: float = 10) -> Frame:
        """The first frame, come already or still to come, that is wanted."""
        return (await self.wait_for_many(1, wanted, seconds))[0]

    async def wait_for_many(
        self, count: int, wanted: Callable[[Frame], bool] | None = None, seconds: float = 10
    ) -> list[Frame]:
        """At least `count` wanted frames (by default: chat messages)."""
        is_wanted = wanted or (lambda frame: isinstance(frame.get("type"), int))
        try:
            async with asyncio.timeout(seconds):
                while len(found := [frame for frame in self.frames if is_wanted(frame)]) < count:
                    assert self.closed is None, f"closed with {self.closed}; {len(found)} of {count} frames came"
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{len(found)} of {count} frames came: {self.frames[-3:]}") from None
        return found

    async def wait_for_close(self, seconds: float = 10) -> tuple[int, str]:
        """The close code and reason."""
        async with asyncio.timeout(seconds):
            while self.closed is None:
                self._changed.clear()
                await self._changed.wait()
        return self.closed

    async def ping(self) -> None:
        """Until the node has read everything that was sent before, and answered it."""
        before = len(self.of_type("pong"))
        await self.send({"type": "ping"})
        await self.wait_for_many(before + 1, lambda frame: frame.get("type") == "pong")

    async def error_to(self, frame: Any) -> Frame:
        """Send a frame and give the error frame that answers it."""
        before = len(self.of_type("error"))
        await self.send(frame)
        return (await self.wait_for_many(before + 1, lambda frame: frame.get("type") == "error"))[-1]
