"""The WebSocket transport: a socket, handed over once uvicorn has answered the upgrade (see `upgrade`).

Whoever owns it is called: with each whole message, when the peer takes data again, when it has ended. There is no task
and no future in it, and nobody who waits.

* frames come and go as bytes, without ASGI messages, many per system call, and whoever writes can see whether
  the peer takes them (`can_write`);
* a close never waits for the peer: the close frame goes out, and a peer that neither answers nor reads is cut
  off after `LINGER` seconds, with whatever is still in its buffer;
* after an answer to a broken or too large frame the rest of it is read and dropped: closing on unread data
  would reset the connection, and the peer would never learn why;
* a peer that is silent past the pong time-out leaves with 4010; text that is not UTF-8 with 1007 (RFC 6455,
  section 8.1), without a traceback in the log;
* while it is held, messages wait here in their order, and past READ_AHEAD of them it is no longer read: pings are
  answered while a sender waits;
* pings of a peer that does not read go unanswered: the answers would gather here without bound.

`ServerSocket` holds all of that. How frames are read is what the transports differ in: `SansIOSocket` has `websockets`
do it and needs nothing that is compiled, `PicowsSocket` is the faster one.
"""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from kama.errors import CloseCode
from kama.server.transport.ws_frame import CLOSE, PING, PONG, make_frame, text_frame
from kama.server.websocket import SocketOwner, retry_reason

if TYPE_CHECKING:
    from kama.server.transport.upgrade import Upgrade

LINGER = 5.0
READ_AHEAD = 16
_REASON_MAX = 123
_QUIET = 0.2


class ServerSocket(asyncio.Protocol):
    """A Socket, but for how frames are read: that is for the classes made of it."""

    __slots__ = (
        "_answer",
        "_connections",
        "_cut_off",
        "_deaf",
        "_fd",
        "_heard",
        "_held",
        "_inbox",
        "_is_text",
        "_keep_alive",
        "_lost",
        "_loop",
        "_message",
        "_over",
        "_owner",
        "_ping_interval",
        "_ping_timeout",
        "_reading_paused",
        "_run",
        "transport",
        "can_write",
        "close_sent",
        "ended",
    )

    def __init__(self, upgrade: Upgrade) -> None:
        self.transport = upgrade.transport
        self._loop = upgrade.loop
        self._connections: set[Any] = upgrade.connections
        self._ping_interval = upgrade.config.ws_ping_interval or 0.0
        self._ping_timeout = upgrade.config.ws_ping_timeout or 0.0
        # What TLS writes is not what it is given.
        self._fd: int = self.transport.get_extra_info("socket").fileno() if upgrade.scheme == "ws" else -1
        self.can_write = True
        self.close_sent = False
        self.ended: tuple[int, str] | None = None
        self._answer = b""  # to the upgrade, until it is written
        self._owner: SocketOwner | None = None
        self._run: Callable[[], Awaitable[None]] | None = None
        self._held = True
        self._inbox: deque[bytes] | None = None
        self._message: bytearray | None = None  # the beginning of a fragmented one
        self._is_text = False
        self._over = False
        self._lost = False
        self._deaf = False
        self._heard = False
        self._reading_paused = False
        self._keep_alive: asyncio.TimerHandle | None = None
        self._cut_off: asyncio.TimerHandle | None = None

    @abstractmethod
    def _read(self, data: bytes) -> None:
        """Bytes from the peer. Gives data to `_take`, a close frame to `_on_close`, what is no frame to `_refuse`."""

    # --- beginning

    def begin(self, answer: bytes, early: bytes) -> None:
        """The upgrade is accepted with this answer, which shares a write with what is said in the same turn of the
        loop; `early` came before."""
        self._answer = answer
        self._loop.call_soon(self._write_answer)
        self._connections.add(self)
        self.transport.set_protocol(self)
        if self._ping_interval > 0:
            self._keep_alive = self._loop.call_later(self._ping_interval, self._ping)
        if early:
            self.data_received(early)

    def hand_over(self, run: Callable[[], Awaitable[None]]) -> None:
        self._run = run

    async def run(self) -> None:
        """What it was handed over to."""
        run, self._run = self._run, None
        if run is not None:
            await run()

    def _write_answer(self) -> None:
        if self._answer:
            self.write_made(b"")

    def leave(self) -> None:
        """The task of the upgrade ends: who would have closed this socket in it does so no more."""
        self._write_answer()
        if self._cut_off is None and (self._owner is None or self._owner.leaves_with_its_task):
            self.transport.close()

    # --- reading

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if not self._deaf:
            self._read(data)

    def _take(self, data: bytes, *, is_text: bool) -> None:
        """A whole message."""
        if self.close_sent:
            return
        if is_text and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError:
                self.close_now(CloseCode.INVALID_DATA, "expected UTF-8 in a text frame")
                return
        if self._owner is not None and not self._held:
            self._owner.on_frame(data)
            return
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(data)
        if not self._reading_paused and len(self._inbox) >= READ_AHEAD:
            self._reading_paused = True
            self.transport.pause_reading()

    def listen(self, owner: SocketOwner) -> None:
        self._owner = owner
        self.release()

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        if self._owner is None:
            return
        if self._inbox is not None:
            self._empty_inbox(self._owner, self._inbox)
        if self._over:
            self._tell_end()

    def _empty_inbox(self, owner: SocketOwner, inbox: deque[bytes]) -> None:
        while inbox and not self._held:
            owner.on_frame(inbox.popleft())
        if len(inbox) <= READ_AHEAD // 2:
            self._resume_reading()
        if not inbox:
            self._inbox = None

    def _end_reading(self) -> None:
        """No message comes any more; those that wait are still for the owner."""
        if not self._over:
            self._over = True
            self._tell_end()

    def _tell_end(self) -> None:
        if self._owner is not None and not self._held and self._inbox is None:
            self._owner.on_end()
            self._let_go()

    def _let_go(self) -> None:
        """The owner has this socket: once the end has come, neither is to wait for the collector."""
        if self._lost and not self._held and self._inbox is None:
            self._owner = None

    def _resume_reading(self) -> None:
        if self._reading_paused and not self.transport.is_closing():
            self.transport.resume_reading()
        self._reading_paused = False

    # --- writing

    def pause_writing(self) -> None:
        self.can_write = False

    def resume_writing(self) -> None:
        if not self.can_write:
            self.can_write = True
            if self._owner is not None:
                self._owner.on_writable()

    @property
    def unsent(self) -> int | None:
        # A transport that was cut off has an empty buffer too: what was in it has gone nowhere.
        if self._lost or self.transport.is_closing():
            return None
        return self.transport.get_write_buffer_size()

    @property
    def _is_open(self) -> bool:
        return not (self.close_sent or self._lost or self.transport.is_closing())

    def write_frames(self, payloads: Sequence[bytes]) -> int | None:
        return self.write_made(b"".join(map(text_frame, payloads)))

    def write_made(self, frames: bytes) -> int | None:
        """To the system at once, where nothing is waiting and it may be seen: uvloop's transport would do it at the end
        of the loop's turn, and until then nobody could tell that it is out."""
        transport = self.transport
        if self.close_sent or self._lost or transport.is_closing():
            return None
        if self._answer:
            frames, self._answer = self._answer + frames, b""
        if self._fd >= 0 and not transport.get_write_buffer_size():
            try:
                written = os.write(self._fd, frames)
            except OSError:
                written = 0  # its buffer is full, or the connection lost: the transport finds out
            if written == len(frames):
                return 0
            frames = frames[written:]
        transport.write(frames)
        return transport.get_write_buffer_size()

    def _answer_ping(self, payload: bytes) -> None:
        if self.can_write:
            self.write_made(make_frame(PONG, payload))

    # --- ending

    def close_now(self, code: int, reason: str = "") -> None:
        if self._is_open:
            # A close frame has 123 bytes for the reason (RFC 6455, section 5.5).
            short = reason.encode()[:_REASON_MAX].decode(errors="ignore").encode()
            self.write_made(make_frame(CLOSE, code.to_bytes(2, "big") + short))
            self._end(code, reason)

    def _refuse(self, code: int, reason: str) -> None:
        """The peer sent what is no frame, or too large a one."""
        self._deaf = True
        self.close_now(code, reason)
        self._close_when_quiet()

    def _close_when_quiet(self) -> None:
        """The close frame of the peer goes unread here: once nothing comes any more, it waits for the end."""
        if self.transport.is_closing():
            return
        if self._heard:
            self._heard = False
            self._loop.call_later(_QUIET, self._close_when_quiet)
        else:
            self.transport.close()

    def _end(self, code: int, reason: str) -> None:
        """Our close frame is written: tell the owner, listen for the peer's, and cut it off after LINGER."""
        self.ended = self.ended or (code, reason)
        self._stop_keep_alive()
        self.close_sent = True
        self._resume_reading()
        self._cut_off_later()
        self._end_reading()

    def _on_close(self, code: int, reason: str, payload: bytes) -> None:
        """The peer's close frame: the answer to ours, or to be answered."""
        self._deaf = True
        self.ended = self.ended or (code, reason)
        self._stop_keep_alive()
        if not self.transport.is_closing():
            self.write_made(make_frame(CLOSE, payload))
            self.transport.close()
        self._cut_off_later()
        self._end_reading()

    def _cut_off_later(self) -> None:
        if self._cut_off is None:
            self._cut_off = self._loop.call_later(LINGER, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self.ended = self.ended or (CloseCode.LOST, "connection lost")
        self._lost = True
        self._fd = -1
        self._stop_keep_alive()
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None
        self.resume_writing()
        self._end_reading()
        self._let_go()

    def shutdown(self) -> None:
        """uvicorn is going down: the node has closed its connections by now, but for those that still owe their token.
        LINGER bounds the rest."""
        self.close_now(CloseCode.GOING_AWAY, retry_reason())

    # --- keeping alive: whatever is heard after a ping answers it

    def _ping(self) -> None:
        self._keep_alive = None
        if self._is_open:
            self._heard = False
            self.write_made(make_frame(PING, b""))
            self._keep_alive = self._loop.call_later(self._ping_timeout, self._look_for_pong)

    def _look_for_pong(self) -> None:
        self._keep_alive = None
        if self._heard or self._reading_paused:
            left = max(0.0, self._ping_interval - self._ping_timeout)
            self._keep_alive = self._loop.call_later(left, self._ping)
        else:
            self.close_now(CloseCode.NO_PONG, "no pong")

    def _stop_keep_alive(self) -> None:
        if self._keep_alive is not None:
            self._keep_alive.cancel()
            self._keep_alive = None
