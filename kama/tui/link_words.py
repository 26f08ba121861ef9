"""What the state of a link is called, how bad it is, and what mends it."""

from __future__ import annotations

from kama.monitor.link import Link, LinkState
from kama.tui.cells import span
from kama.tui.look import Tone

NAMES: dict[LinkState, tuple[str, Tone]] = {
    LinkState.CONNECTING: ("○ CONNECTING", "accent"),
    LinkState.LIVE: ("● LIVE", "good"),
    LinkState.SLOW: ("◐ SLOW LINK", "warn"),
    LinkState.STALE: ("◌ STALE", "warn"),
    LinkState.GONE: ("✖ SERVER GONE", "bad"),
    LinkState.AUTH_FAILED: ("✖ AUTH FAILED", "bad"),
    LinkState.EXPIRED: ("✖ TOKEN EXPIRED", "bad"),
    LinkState.FORBIDDEN: ("✖ FORBIDDEN", "bad"),
    LinkState.RESTARTING: ("◌ RESTARTING", "warn"),
    LinkState.INCOMPATIBLE: ("✖ INCOMPATIBLE", "bad"),
}
_TOKEN = "kama token Uoperator --role viewer > FILE"
_REMEDIES: dict[LinkState, tuple[str, ...]] = {
    LinkState.AUTH_FAILED: (f"a token that the node takes: {_TOKEN}", "then: kama monitor -t FILE"),
    LinkState.EXPIRED: (f"a new token in the same file is read at the next try: {_TOKEN}",),
    LinkState.FORBIDDEN: (f"the role has to be viewer or admin: {_TOKEN}", "then: kama monitor -t FILE"),
    LinkState.INCOMPATIBLE: ("upgrade the older side; kama version tells what runs here",),
}


def name_of(state: LinkState) -> tuple[str, Tone]:
    """The glyph and the word."""
    return NAMES[state]


def remedy(state: LinkState) -> tuple[str, ...]:
    """What a person can do, a line each; none where waiting is all."""
    return _REMEDIES.get(state, ())


def next_try(link: Link, now_ms: int) -> str:
    """When it is tried again, in words."""
    if link.next_try_ms is None:
        return f"trying now (try {link.attempt})" if link.attempt else "trying now"
    return f"next try in {span(max(0, link.next_try_ms - now_ms) + 999)} (r: now)"
