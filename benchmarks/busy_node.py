"""A real node with connections that lead nowhere: `python -m benchmarks.busy_node --connections 5000 --rate 2000`.

Two cores cannot carry a node, the load of 5,000 sockets and a dashboard at once. Here the node is real, and so are its
connections, registry, journal, delivery and what watches it, over a real WebSocket; sockets, checks and the store of
the made-up messages are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvicorn

from benchmarks.servers import KEEPER
from kama.protocol import ChatMessageRequest, MessageStatus, build_message, conversation_id
from kama.server.app import Node, build_app
from kama.server.auth import Identity
from kama.server.broker import Stored
from kama.server.message_back import MessageBack, message_back
from kama.server.node_server import NodeServer, server_config
from kama.server.send_queue import ConnLimits
from kama.server.store.progress import StatusChange
from kama.server.tasks import spawn
from kama.server.websocket import SocketOwner
from kama.server.ws_gateway import UserConn
from kama.settings import Settings

_TURN_S = 0.02
# One in so many connections takes what it is given only every so many seconds: queues are there to be seen.
_SLOW_SHARE = 100
_SLOW_S = 5.0
_CONTENT = "x" * 200


class Nowhere:
    """A socket whose peer says nothing, and takes everything: at once, or now and then."""

    def __init__(self) -> None:
        self.can_write = True
        self.ended: tuple[int, str] | None = None
        self._owner: SocketOwner | None = None

    @property
    def unsent(self) -> int | None:
        return 0

    def listen(self, owner: SocketOwner) -> None:
        self._owner = owner

    def hold(self) -> None:
        """Nothing comes anyway."""

    def release(self) -> None:
        """Nothing comes anyway."""

    def write_frames(self, payloads: Sequence[bytes]) -> int | None:
        return self.write_made(b"")

    def write_made(self, frames: bytes) -> int | None:
        return 0 if self.ended is None else None

    def hand_over(self, run: Callable[[], Awaitable[None]]) -> None:
        """No handshake, nothing to run after it."""

    def close_now(self, code: int, reason: str = "") -> None:
        self.ended = self.ended or (code, reason)

    async def take_now_and_then(self) -> None:
        while self.ended is None:
            self.can_write = False
            await asyncio.sleep(random.uniform(0, 2 * _SLOW_S))
            self.can_write = True
            if self._owner is not None:
                self._owner.on_writable()
            await asyncio.sleep(_TURN_S)


class NothingMissed:
    """The backlog of users who have been sent all there is."""

    async def positions(self, user_id: str) -> Sequence[tuple[str, int, int]]:
        return ()

    def positions_now(self, user_id: str) -> Sequence[tuple[str, int, int]]:
        return ()

    async def page(self, conversation: str, after_seq: int, limit: int) -> list[MessageBack]:
        return []


class Crowd:
    """`connections` users on the node, who exchange `rate` messages a second in pairs. `run` never ends by itself."""

    def __init__(self, node: Node, connections: int, rate: int) -> None:
        self._node = node
        self._connections = connections
        self._rate = rate
        self._seqs: dict[str, int] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._connections):
                socket = Nowhere()
                conn = self._new_conn(f"U{number:06}", socket)
                self._node.registry.add(conn)
                conn.start(_ignore)
                if number % _SLOW_SHARE == 0:
                    tasks.create_task(socket.take_now_and_then())
            await self._talk()

    def _new_conn(self, user_id: str, socket: Nowhere) -> UserConn:
        return UserConn(
            id=f"c{user_id}",
            identity=Identity(user_id, "user", time.time() + 86_400),
            socket=socket,
            welcome=b"",
            backlog=NothingMissed(),
            limits=ConnLimits(),
            sent=self._sent,
            closed=self._node.registry.discard,
            device=random.choice(("phone", "desktop", "tablet")),
            address=f"10.0.{random.randrange(256)}.{random.randrange(256)}:40000",
            journal=self._node.journal,
        )

    async def _talk(self) -> None:
        """What is due since the start, in turns; a turn that comes late has more to say."""
        started, said = time.monotonic(), 0
        while not self._node.draining:
            due = int((time.monotonic() - started) * self._rate)
            for _ in range(due - said):
                await self._say()
            said = due
            await asyncio.sleep(_TURN_S)

    async def _say(self) -> None:
        """What the walk of a message notes and counts, and its delivery."""
        node, journal = self._node, self._node.journal
        number = random.randrange(self._connections)
        send_id, receive_id = f"U{number:06}", f"U{number ^ 1:06}"
        for conn in node.registry.get(send_id):
            conn.counters.received += 1
            conn.last = time.time()
        conversation = conversation_id(send_id, receive_id)
        seq = self._seqs[conversation] = self._seqs.get(conversation, 0) + 1
        uuid = node.ids.next()
        journal.traffic.received += 1
        node.chat.counters.accepted += 1
        journal.accepted(uuid, conversation, send_id, receive_id, 0, len(_CONTENT), f"c{send_id}")
        request = ChatMessageRequest(type=0, send_id=send_id, receive_id=receive_id, content=_CONTENT)
        node.chat.counters.stored += 1
        journal.stored([(uuid, Stored(uuid, conversation, seq))], 3.0)
        message = build_message(request, uuid, seq, time.time_ns() // 1_000_000)
        await node.delivery.deliver(message_back(conversation, message, live=True))

    def _sent(self, user_id: str, back: MessageBack, up_to: int, connection: str) -> None:
        if user_id != back.send_id:
            journal = self._node.journal
            journal.written(back.uuid, user_id, connection, back.accepted_ms, live=back.live)
            journal.traffic.sent += 1
            change = StatusChange(
                back.uuid, back.conversation, back.seq, back.send_id, back.has_client_id, MessageStatus.SENT, user_id
            )
            journal.risen("sent", [change])


def _ignore(conn: UserConn, frame: bytes) -> None:
    """Nobody says anything here."""


async def serve(connections: int, rate: int, folder: Path) -> None:
    settings = Settings.model_validate({"store": {"url": f"sqlite+aiosqlite:///{folder / 'kama.db'}"}})
    with uvicorn.Config("", host="127.0.0.1", port=0, log_config=None).bind_socket() as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        node = Node(settings, KEEPER, name=address)
        await node.start()
        crowd = spawn(Crowd(node, connections, rate).run(), name="crowd")
        server = NodeServer(
            server_config(build_app(node), settings), node, lambda: print(f"listens on http://{address}", flush=True)
        )
        await server.serve([listener])
        await crowd


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.busy_node", description=__doc__)
    parser.add_argument("--connections", type=int, default=5_000)
    parser.add_argument("--rate", type=int, default=2_000, help="messages a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kama-benchmark-") as folder:
        loop_factory = uvicorn.Config("", log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(serve(options.connections, options.rate, Path(folder)))


if __name__ == "__main__":
    main()
