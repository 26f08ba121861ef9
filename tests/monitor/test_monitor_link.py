"""Link: each change of it, with the clock passed in."""

from __future__ import annotations

import pytest

from kama.errors import CannotConnect, Forbidden, KamaError, NotFound, SettingsError, TimedOut, Unauthorised
from kama.monitor.link import (
    Incompatible,
    Link,
    LinkState,
    check_hello,
    state_of_bye,
    state_of_close,
    state_of_refusal,
)
from kama.monitor_protocol import Bye, Hello

LIVE = Link(state=LinkState.LIVE, since_ms=1_000)
REFUSED = "Connection refused"


def hello(protocol: int) -> Hello:
    return Hello(
        protocol=protocol, node="n1", epoch="e", mode="channel", version="9", started_ms=0, now_ms=0, role="viewer",
        user_id="U1", expires_ms=0,
    )  # fmt: skip


def test_the_first_frame_makes_it_live() -> None:
    link = Link(since_ms=1).tried().brought(250, 250, 2_000)
    assert (link.state, link.since_ms, link.attempt, link.cause) == (LinkState.LIVE, 2_000, 0, "")


def test_further_frames_are_no_news() -> None:
    assert LIVE.brought(250, 250, 9_000) is LIVE


def test_fewer_frames_than_asked_for_make_it_slow_and_say_how_many() -> None:
    link = LIVE.brought(1_000, 250, 9_000)
    assert (link.state, link.since_ms, link.interval_ms) == (LinkState.SLOW, 9_000, 1_000)
    assert link.is_current and "1000 ms" in link.cause
    assert link.brought(250, 250, 9_500).state is LinkState.LIVE


@pytest.mark.parametrize(("interval_ms", "silence_ms"), [(250, 2_000), (1_000, 3_000)])
def test_silence_makes_it_stale_after_three_intervals_and_two_seconds_at_least(
    interval_ms: int, silence_ms: int
) -> None:
    link = LIVE.brought(interval_ms, interval_ms, 1_000)
    assert link.waited(5_000, 5_000 + silence_ms - 1) is link
    stale = link.waited(5_000, 5_000 + silence_ms)
    assert (stale.state, stale.since_ms) == (LinkState.STALE, 5_000 + silence_ms) and not stale.is_current


def test_it_is_gone_after_half_a_minute_of_silence() -> None:
    stale = LIVE.waited(1_000, 4_000)
    assert stale.waited(1_000, 30_999) is stale
    assert stale.waited(1_000, 31_000).state is LinkState.GONE


def test_a_node_that_never_says_anything_turns_stale_too() -> None:
    assert Link(since_ms=0).tried().waited(0, 2_000).state is LinkState.STALE


def test_a_state_begins_once_however_often_a_try_fails() -> None:
    gone = LIVE.failed(LinkState.GONE, REFUSED, 2_000)
    again = gone.tries_again(2_500).tried().failed(LinkState.GONE, "No route to host", 3_000)
    assert (again.since_ms, again.cause, again.attempt) == (2_000, "No route to host", 1)


def test_a_try_is_no_news_until_it_ends() -> None:
    gone = LIVE.failed(LinkState.GONE, REFUSED, 2_000).tries_again(9_000)
    assert gone.next_try_ms == 9_000
    assert gone.tried().state is LinkState.GONE and gone.tried().next_try_ms is None


def test_a_node_that_said_that_it_restarts_may_take_half_a_minute() -> None:
    restarting = LIVE.failed(LinkState.RESTARTING, "node n1 is shutting down", 2_000)
    assert restarting.failed(LinkState.GONE, REFUSED, 31_999).state is LinkState.RESTARTING
    assert restarting.failed(LinkState.GONE, REFUSED, 32_000).state is LinkState.GONE


def test_an_expired_token_that_is_refused_is_still_expired() -> None:
    expired = LIVE.failed(LinkState.EXPIRED, "expired", 2_000)
    assert expired.failed(LinkState.AUTH_FAILED, "the token has expired", 3_000).state is LinkState.EXPIRED


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Unauthorised("x"), LinkState.AUTH_FAILED),
        (SettingsError("no such file"), LinkState.AUTH_FAILED),
        (Forbidden("x"), LinkState.FORBIDDEN),
        (NotFound("x"), LinkState.INCOMPATIBLE),
        (Incompatible("x"), LinkState.INCOMPATIBLE),
        (CannotConnect("x"), LinkState.GONE),
        (TimedOut("x"), LinkState.GONE),
    ],
)
def test_what_a_refusal_means(error: KamaError, state: LinkState) -> None:
    assert state_of_refusal(error) is state


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (1006, LinkState.STALE),
        (1011, LinkState.STALE),
        (1001, LinkState.RESTARTING),
        (4003, LinkState.FORBIDDEN),
        (4005, LinkState.EXPIRED),
    ],
)
def test_what_the_end_of_a_connection_means(code: int, state: LinkState) -> None:
    assert state_of_close(code) is state


def test_what_a_goodbye_means() -> None:
    assert state_of_bye(Bye(reason="shutdown"), "n1") == (LinkState.RESTARTING, "node n1 is shutting down")
    assert state_of_bye(Bye(reason="auth_expired"), "n1")[0] is LinkState.EXPIRED
    assert state_of_bye(Bye(reason="too_many_watchers", message="eight are enough"), "n1") == (
        LinkState.GONE,
        "eight are enough",
    )


@pytest.mark.parametrize(("protocol", "older"), [(2, "kama here"), (0, "node n1")])
def test_another_protocol_names_both_versions_and_who_is_to_upgrade(protocol: int, older: str) -> None:
    with pytest.raises(Incompatible, match=f"expected monitor protocol 1, got {protocol} from 9: upgrade {older}"):
        check_hello(hello(protocol))
    check_hello(hello(1))
