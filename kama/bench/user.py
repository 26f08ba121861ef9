"""User: one made-up user, with a real client that comes back, resumes and pulls."""

from __future__ import annotations

import asyncio
from time import perf_counter

from kama.bench.frames import ConnectionFrames
from kama.bench.ledger import Ledger
from kama.bench.plan import Issue, Seat, Stamp
from kama.bench.tally import Tally
from kama.bench.transport import fastest_client
from kama.chat_client import ChatClient, Tap
from kama.client import Frame
from kama.errors import KamaError
from kama.protocol import conversation_id

# A little less than the node allows: its clock is not ours, and too many refused frames would end the connection.
_MARGIN = 1.02
_AT_ONCE = 1e-6  # seconds: less is a matter of rounding


class Allowance:
    """When a user's next message may go, by the limit that the node tells in its welcome. No limit: at once."""

    def __init__(self) -> None:
        self._interval = 0.0
        self._burst = 0.0
        self._next = 0.0

    def set(self, rate: float, burst: float) -> None:
        """`rate` in messages a second, 0: no limit; `burst` in messages."""
        self._interval = _MARGIN / rate if rate > 0 else 0.0
        self._burst = max(0.0, burst - 1) * self._interval

    def take(self, now: float) -> float:
        """Take the next turn; the seconds until it comes."""
        if not self._interval:
            return 0.0
        turn = max(self._next, now - self._burst)
        self._next = turn + self._interval
        wait = turn - now
        return wait if wait > _AT_ONCE else 0.0


class User(Tap):
    """`run` is the user's client, until cancelled; it ends by itself when the node sends the user away for good.

    Raises (from `run`) what the node answers to the first login.
    """

    def __init__(self, seat: Seat, issue: Issue, stamp: Stamp, tally: Tally, ledger: Ledger | None) -> None:
        self.user_id = seat.user_id
        self.dismissed: KamaError | None = None
        self.allowance = Allowance()
        self._stamp = stamp
        self._tally = tally
        self._ledger = ledger
        self._frames: ConnectionFrames | None = None
        self._connections = 0
        token = issue(seat.user_id, False)
        self.client = ChatClient(
            seat.node,
            seat.user_id,
            lambda: token,
            self._take,
            device="kama-bench",
            unknown="all",
            tap=self,
            client=fastest_client(),
        )

    async def run(self) -> None:
        try:
            await self.client.run()
        except KamaError as error:
            if not self._connections:
                raise
            self.dismissed = error
            self._tally.dismissed += 1
            if self._ledger is not None:
                self._ledger.leave(self.user_id)
        finally:
            self._end_connection()

    async def post(self, receive_id: str, conversation: str, message: int, due: float) -> None:
        """One message until it is acked. Raises what the node refuses it with."""
        tally = self._tally
        tally.sent += 1
        if self._ledger is not None:
            self._ledger.sent(conversation, message)
        await self.client.send(receive_id, self._stamp.write(message, int((due - tally.zero) * 1e6)))
        tally.acked += 1
        tally.record(tally.accept, due)
        if self._ledger is not None:
            self._ledger.acked(conversation, message)

    async def turn(self) -> None:
        """Until the node's limit lets the next message pass."""
        wait = self.allowance.take(perf_counter())
        if wait > 0:
            self._tally.held_back += 1
            await asyncio.sleep(wait)

    # --- what the client is shown

    def _take(self, frame: Frame) -> None:
        known = self._stamp.read(frame["content"])
        if known is not None and frame["send_id"] != self.user_id:
            self._tally.received += 1
            self._tally.record(self._tally.receive, self._tally.zero + known[1] / 1e6)
        if self._ledger is not None and frame["seq"]:
            key = conversation_id(frame["send_id"], frame["receive_id"])
            self._ledger.shown(key, self.user_id, frame["seq"], known[0] if known is not None else None)

    # --- what its connections carry

    def opened(self) -> None:
        self._connections += 1
        self._tally.logins += 1
        if self._connections > 1:
            self._tally.reconnects += 1
        self._end_connection()
        if self._ledger is not None:
            self._frames = ConnectionFrames()

    def closed(self, code: int, reason: str) -> None:
        self._tally.close_codes[code] += 1
        self._end_connection()

    def sent(self, frame: Frame) -> None:
        if frame["type"] == "pull":
            self._tally.pulls += 1
            if self._frames is not None:
                self._frames.pull(frame["conversation"], frame["after_seq"], frame["limit"])

    def received(self, frame: Frame) -> None:
        kind = frame.get("type")
        if kind == "error":
            self._tally.errors[frame["code"]] += 1
        elif kind == "system" and frame.get("event") == "welcome":
            self._welcome(frame)
        elif self._frames is None:
            return
        elif isinstance(kind, int):
            if frame["seq"]:
                self._frames.message(conversation_id(frame["send_id"], frame["receive_id"]), frame["seq"])
        elif frame.get("event") == "pulled":
            self._frames.pulled(frame["conversation"], frame["last_seq"])

    def _welcome(self, frame: Frame) -> None:
        limits = frame.get("limits") or {}
        self._tally.limits = limits
        self.allowance.set(limits.get("messages_per_second", 0), limits.get("burst", 1))

    def _end_connection(self) -> None:
        if self._frames is not None and self._ledger is not None:
            self._ledger.connection_ended(self._frames.end())
        self._frames = None
