"""Link: how the connection to a watched node is. Pure: each change of it is given the time, in Unix milliseconds."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from kama.errors import CannotConnect, CloseCode, Forbidden, KamaError, NotFound, SettingsError, Unauthorised
from kama.monitor_protocol import INTERVAL_MS_MIN, MONITOR_PROTOCOL, Bye, Hello

SILENCE_MS_MIN = 2_000
GONE_AFTER_MS = 30_000


class LinkState(StrEnum):
    CONNECTING = "connecting"  # nothing came yet, and nothing failed yet
    LIVE = "live"
    SLOW = "slow"  # frames come, less often than asked for
    STALE = "stale"  # no frame for too long, or the connection was lost
    GONE = "gone"  # nothing answers at the address, or stale for long
    AUTH_FAILED = "auth failed"
    EXPIRED = "expired"
    FORBIDDEN = "forbidden"
    RESTARTING = "restarting"  # the node said that it shuts down
    INCOMPATIBLE = "incompatible"


CURRENT = frozenset({LinkState.LIVE, LinkState.SLOW})


class Incompatible(CannotConnect):
    """The other side is no node whose frames can be read."""


class Link(Struct, frozen=True, kw_only=True, tag="link"):
    """The state since `since_ms` and its cause in words; `attempt` counts the tries since it was last current.

    `interval_ms` is what the node keeps between frames. `next_try_ms` none: connected, or trying right now.
    """

    state: LinkState = LinkState.CONNECTING
    since_ms: int = 0
    cause: str = ""
    attempt: int = 0
    next_try_ms: int | None = None
    interval_ms: int = INTERVAL_MS_MIN

    @property
    def is_current(self) -> bool:
        """Whether what this link brought is of now."""
        return self.state in CURRENT

    @property
    def silence_ms(self) -> int:
        """How long no frame may come."""
        return max(3 * self.interval_ms, SILENCE_MS_MIN)

    def tried(self) -> Link:
        """Another try begins. The state stays what it was: a try is no news until it ends."""
        return replace(self, attempt=self.attempt + 1, next_try_ms=None)

    def brought(self, interval_ms: int, wanted_ms: int, now_ms: int) -> Link:
        """A frame with data came; the node keeps `interval_ms` where `wanted_ms` was asked for."""
        is_slow = interval_ms > wanted_ms
        cause = f"the node sends every {interval_ms} ms, asked for was {wanted_ms} ms" if is_slow else ""
        link = self._to(LinkState.SLOW if is_slow else LinkState.LIVE, cause, now_ms)
        if link.interval_ms == interval_ms and link.attempt == 0:
            return link
        return replace(link, interval_ms=interval_ms, attempt=0, next_try_ms=None)

    def waited(self, frame_ms: int, now_ms: int) -> Link:
        """Time passed; the last frame came at `frame_ms`."""
        silence = now_ms - frame_ms
        if (self.is_current or self.state is LinkState.CONNECTING) and silence >= self.silence_ms:
            return self._to(LinkState.STALE, "no frame comes", now_ms)
        if self.state in (LinkState.STALE, LinkState.RESTARTING) and silence >= GONE_AFTER_MS:
            return self._to(LinkState.GONE, self.cause, now_ms)
        return self

    def failed(self, state: LinkState, cause: str, now_ms: int) -> Link:
        """A try or the connection failed. What is known better than that stays."""
        if state is LinkState.GONE and self.state is LinkState.RESTARTING:
            return self if now_ms - self.since_ms < GONE_AFTER_MS else self._to(state, cause, now_ms)
        if state is LinkState.AUTH_FAILED and self.state is LinkState.EXPIRED:
            return replace(self, cause=cause)
        return self._to(state, cause, now_ms)

    def tries_again(self, next_try_ms: int) -> Link:
        return replace(self, next_try_ms=next_try_ms)

    def _to(self, state: LinkState, cause: str, now_ms: int) -> Link:
        if (state, cause) == (self.state, self.cause):
            return self
        since_ms = self.since_ms if state is self.state else now_ms
        return replace(self, state=state, since_ms=since_ms, cause=cause)


# --- what a failure means ------------------------------------------------------------------------------


def state_of_refusal(error: KamaError) -> LinkState:
    """What it means that a try to connect failed with this."""
    match error:
        case Unauthorised() | SettingsError():  # refused, or there is none to show
            return LinkState.AUTH_FAILED
        case Forbidden():
            return LinkState.FORBIDDEN
        case Incompatible() | NotFound():  # a node without a monitor has no such route
            return LinkState.INCOMPATIBLE
        case _:
            return LinkState.GONE


def state_of_close(code: int) -> LinkState:
    """What it means that the node ended an open connection with this code."""
    match code:
        case CloseCode.TOKEN_EXPIRED:
            return LinkState.EXPIRED
        case CloseCode.FORBIDDEN | CloseCode.KICKED:
            return LinkState.FORBIDDEN
        case CloseCode.GOING_AWAY:
            return LinkState.RESTARTING
        case _:
            return LinkState.STALE


def state_of_bye(bye: Bye, node: str) -> tuple[LinkState, str]:
    """The state, and its cause in words."""
    match bye.reason:
        case "shutdown":
            return LinkState.RESTARTING, f"node {node} is shutting down"
        case "auth_expired":
            return LinkState.EXPIRED, bye.message or "the token has expired"
        case _:
            return LinkState.GONE, bye.message or "the node has as many watchers as it takes"


def check_hello(hello: Hello) -> None:
    """Raises Incompatible, which names both versions and the side to upgrade."""
    if hello.protocol != MONITOR_PROTOCOL:
        older = "kama here" if hello.protocol > MONITOR_PROTOCOL else f"node {hello.node}"
        raise Incompatible(
            f"expected monitor protocol {MONITOR_PROTOCOL}, got {hello.protocol} from {hello.version}: upgrade {older}"
        )
