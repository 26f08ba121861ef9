"""Watcher: one connection of somebody who looks. Its frames are made when its socket is empty, never before."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kama.errors import BadParameter, CloseCode, DatabaseFailed, KamaError, RateLimited
from kama.monitor_protocol import Ack, Bye, History, NodeFrame, Problem, Result, Sub, WatcherFrame, decode_watcher_frame
from kama.protocol import encode
from kama.refusals import explain
from kama.server.auth import Identity
from kama.server.guard import error_text
from kama.server.limits import TokenBuckets
from kama.server.tasks import cancel, spawn
from kama.server.transport.socket_reader import SocketReader
from kama.server.watch.answers import answer
from kama.server.watch.frames import Frames
from kama.server.watch.pace import Pace
from kama.server.websocket import Socket

if TYPE_CHECKING:
    from kama.server.app import Node

log = structlog.get_logger("kama.watch")

ByeReason = Literal["shutdown", "auth_expired", "too_many_watchers"]
_FIRST_SUB = 1.0
_DAY = 86_400.0
_LOOK_AGAIN = 0.05
# Of requests; acks and subs cost little.
_REQUESTS_PER_SECOND = 10
_REQUESTS_AT_ONCE = 50
# Of frames that cannot be read: more than a client with a fault sends.
_FAULTS_PER_SECOND = 5
_FAULTS_AT_ONCE = 100


class Watcher:
    """Made after the upgrade, with a token that was verified; `run` lasts until either side ends it."""

    def __init__(self, node: Node, socket: Socket, identity: Identity) -> None:
        self._node = node
        self._socket = socket
        self._reader = SocketReader(socket)
        self._identity = identity
        self._pace = Pace(Sub().interval_ms)
        self._frames = Frames(node, Sub())
        self._sub_came = asyncio.Event()
        self._requests = TokenBuckets(_REQUESTS_PER_SECOND, _REQUESTS_AT_ONCE)
        self._faults = TokenBuckets(_FAULTS_PER_SECOND, _FAULTS_AT_ONCE)
        self._expiry: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        self._wait_for_expiry()
        showing = spawn(self._show(), name=f"watcher {self._identity.user_id}")
        try:
            while (data := await self._reader.receive_frame()) is not None:
                await self._on_frame(data)
                # Who asks and does not read is not read either.
                await self._reader.drain()
        finally:
            if self._expiry is not None:
                self._expiry.cancel()
            await cancel(showing)
            self._frames.end()

    def end(self, why: ByeReason, code: int, reason: str = "") -> None:
        self._write(Bye(reason=why))
        self._socket.close_now(code, reason)

    def _wait_for_expiry(self) -> None:
        left = self._identity.expires_at - time.time()
        if left <= 0:
            self.end("auth_expired", CloseCode.TOKEN_EXPIRED, "token expired")
        else:
            self._expiry = asyncio.get_running_loop().call_later(min(left, _DAY) + 0.001, self._wait_for_expiry)

    def _write(self, *frames: NodeFrame) -> None:
        self._socket.write_frames([encode(frame) for frame in frames])

    # --- what it is shown

    async def _show(self) -> None:
        try:
            self._write(self._node.view.hello(self._identity), History(points=list(self._node.view.vitals.points)))
            await self._wait(_FIRST_SUB)
            self._sub_came.set()
            while True:
                await self._show_once()
                await self._wait(self._pace.interval_ms / 1000)
        except Exception:
            self._socket.close_now(CloseCode.INTERNAL_ERROR, "the node failed on this watcher: its log says why")
            raise

    async def _wait(self, seconds: float) -> None:
        """Until then, or until the watcher wants to see something else."""
        try:
            async with asyncio.timeout(seconds):
                await self._sub_came.wait()
        except TimeoutError:
            pass

    async def _show_once(self) -> None:
        loop = asyncio.get_running_loop()
        self._pace.look(loop.time())
        if self._socket.unsent != 0:
            await asyncio.sleep(_LOOK_AGAIN)
            return
        interval_ms = self._pace.interval_ms
        frames: list[NodeFrame] = []
        if self._sub_came.is_set():
            self._sub_came.clear()
            frames.append(await self._frames.snap(interval_ms))
        else:
            frames.append(await self._frames.delta(interval_ms))
        if (events := await self._frames.events()) is not None:
            frames.append(events)
        self._write(*frames)
        self._pace.sent(self._frames.seq, loop.time())

    # --- what it says

    async def _on_frame(self, data: bytes) -> None:
        request = ""
        try:
            frame = _decode(data)
            if isinstance(frame, Ack):
                self._pace.acked(frame.seq, asyncio.get_running_loop().time())
            elif isinstance(frame, Sub):
                self._frames.want(frame)
                self._pace.want(frame.interval_ms)
                self._sub_came.set()
            else:
                request = frame.request
                if (wait := self._requests.take("")) > 0:
                    raise RateLimited("more requests than a watcher may make", retry_after=wait)
                self._write(Result(request=request, outcome=await answer(self._node, self._identity, frame)))
        except KamaError as error:
            self._refuse(error, request or _request_in(data))
        except (SQLAlchemyError, OSError) as error:
            log.warning("store failed while a watcher asked", error=repr(error))
            self._refuse(DatabaseFailed("the store does not answer: try again later"), request)

    def _refuse(self, error: KamaError, request: str) -> None:
        self._write(Result(request=request, error=Problem(code=error.code, message=error_text(error))))
        if self._faults.take("") > 0:
            self._socket.close_now(CloseCode.ABUSE, "too many refused frames")


def _decode(data: bytes) -> WatcherFrame:
    """Raises BadParameter, which says what was expected and what came."""
    try:
        try:
            frame: WatcherFrame = decode_watcher_frame(data)
            return frame
        except msgspec.ValidationError as error:
            raise explain(error, msgspec.json.decode(data)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadParameter(f"expected one JSON object: {error}") from None


def _request_in(data: bytes) -> str:
    """The request that a refused frame names, if that much of it can be read."""
    try:
        return _Named.decode(data).request[:64]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


class _WithRequest(msgspec.Struct):
    request: str = ""


_Named = msgspec.json.Decoder(_WithRequest)
