"""LiveSource against real nodes: what it shows, and what it says of a link that breaks in every way."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from support import NodeProcess, RunningNode, StartNode, eventually, token
from watching_support import Watching, admin, live_source, viewer

from kama.errors import CannotConnect, Forbidden, SettingsError
from kama.monitor.link import LinkState
from kama.monitor.live_source import BACKOFF_MAX, full_jitter
from kama.monitor_protocol import ClientQuery, Kick, Sub, Trace


async def test_it_shows_who_is_there_and_what_became_of_a_message(node: RunningNode) -> None:
    async with Watching(live_source(node.url)) as watching, node.login("U1") as one, node.login("U2") as two:
        await watching.until(LinkState.LIVE)
        await one.say("U2", "hello")
        (message,) = await two.wait_for_many(1)
        found = await eventually(
            lambda: (known := watching.store.messages.get(message["uuid"])) and known.status == "sent" and known
        )
        assert (found.send_id, found.receive_id) == ("U1", "U2")
        assert {"accepted", "stored", "routed", "written", "sent"} <= found.times.keys()
        await eventually(lambda: {client.user_id for client in watching.store.clients.values()} == {"U1", "U2"})
        assert watching.store.nodes[node.node.name].connections == 2
    assert watching.states() == [LinkState.CONNECTING, LinkState.LIVE]


async def test_a_connection_that_ended_is_among_the_closed(node: RunningNode) -> None:
    async with Watching(live_source(node.url)) as watching:
        await watching.until(LinkState.LIVE)
        async with node.login("U1"):
            await eventually(lambda: watching.store.clients)
        await eventually(lambda: watching.store.closed)
        assert watching.store.closed[0].user_id == "U1" and not watching.store.clients


async def test_what_is_wanted_can_change_at_any_time(node: RunningNode) -> None:
    source = live_source(node.url)
    async with Watching(source) as watching, node.login("U1"), node.login("U2"):
        await eventually(lambda: len(watching.store.clients) == 2)
        await source.subscribe(Sub(clients=ClientQuery(filter="user=U2")))
        await eventually(lambda: [client.user_id for client in watching.store.clients.values()] == ["U2"])
        assert (watching.store.matched, watching.store.total) == (1, 2)


async def test_requests_are_answered(node: RunningNode) -> None:
    source = live_source(node.url, admin)
    async with Watching(source) as watching, node.login("U1") as one:
        await watching.until(LinkState.LIVE)
        outcome = await source.request(Kick(request="k1", user_id="U1", reason="test"))
        assert outcome.closed == 1 and (await one.wait_for_close())[0] == 4002


async def test_a_request_that_is_refused_raises_what_the_node_said(node: RunningNode) -> None:
    source = live_source(node.url)
    async with Watching(source) as watching:
        await watching.until(LinkState.LIVE)
        with pytest.raises(Forbidden):
            await source.request(Kick(request="k1", user_id="U1"))


async def test_a_request_without_a_connection_says_so(node: RunningNode) -> None:
    with pytest.raises(CannotConnect, match="is not connected"):
        await live_source(node.url).request(Trace(request="1", uuid="1"))


# --- links that break ----------------------------------------------------------------------------------


async def test_a_node_killed_is_not_live_within_3_seconds_and_live_again_after_its_return(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as process:
        async with Watching(live_source(process.url)) as watching:
            await watching.until(LinkState.LIVE)
            first = watching.store.sources[process.url].hello
            killed = time.monotonic()
            process.kill()
            await eventually(lambda: LinkState.STALE in watching.states(), seconds=10)
            assert time.monotonic() - killed < 3
            gone = await watching.until(LinkState.GONE)
            assert "Connection refused" in gone.cause
            process.start()
            await watching.until(LinkState.LIVE)
            again = watching.store.sources[process.url].hello
            assert first and again and first.epoch != again.epoch


async def test_a_node_that_hangs_is_stale_within_3_seconds_and_live_again_when_it_goes_on(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as process:
        async with Watching(live_source(process.url)) as watching:
            await watching.until(LinkState.LIVE)
            process.signal(signal.SIGSTOP)
            try:
                stale = await watching.until(LinkState.STALE, seconds=10)
                last = watching.store.sources[process.url].frame_ms
                assert stale.since_ms - last < 3_000 and stale.cause == "no frame comes"
            finally:
                process.signal(signal.SIGCONT)
            await watching.until(LinkState.LIVE)


async def test_a_node_that_shuts_down_says_so(start_node: StartNode) -> None:
    node = await start_node()
    async with Watching(live_source(node.url)) as watching:
        await watching.until(LinkState.LIVE)
        node.stop()
        link = await watching.until(LinkState.RESTARTING)
        assert link.cause == f"node {node.node.name} is shutting down"


async def test_an_expired_token_is_said_and_the_next_one_is_read_from_the_file(
    node: RunningNode, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(token("Uviewer", "viewer", ttl=1))
    async with Watching(live_source(node.url, file.read_text)) as watching:
        await watching.until(LinkState.EXPIRED)
        await eventually(lambda: watching.links[node.url][-1].attempt >= 2)
        assert LinkState.AUTH_FAILED not in watching.states()
        file.write_text(viewer())
        await watching.until(LinkState.LIVE)


async def test_a_token_that_is_none_fails_until_there_is_a_good_one(node: RunningNode) -> None:
    tokens = ["nonsense"]
    async with Watching(live_source(node.url, lambda: tokens[-1])) as watching:
        await watching.until(LinkState.AUTH_FAILED)
        tokens.append(viewer())
        await watching.until(LinkState.LIVE)


async def test_a_token_that_cannot_be_read_is_no_reason_to_end(node: RunningNode) -> None:
    def read() -> str:
        raise SettingsError("cannot read the token in x: No such file or directory")

    async with Watching(live_source(node.url, read)) as watching:
        link = await watching.until(LinkState.AUTH_FAILED)
        assert "No such file" in link.cause


async def test_a_users_token_is_forbidden(node: RunningNode) -> None:
    async with Watching(live_source(node.url, lambda: token("U1"))) as watching:
        link = await watching.until(LinkState.FORBIDDEN)
        assert "viewer or admin" in link.cause


async def test_the_ninth_watcher_is_told_why(node: RunningNode) -> None:
    others = [Watching(live_source(node.url)) for _ in range(8)]
    try:
        for other in others:
            await other.__aenter__()
            await other.until(LinkState.LIVE)
        async with Watching(live_source(node.url)) as watching:
            link = await watching.until(LinkState.GONE)
            assert "8" in link.cause
    finally:
        for other in others:
            await other.__aexit__(None, None, None)


async def test_nobody_waits_for_the_next_try_against_their_will(tmp_path: Path) -> None:
    process = NodeProcess(tmp_path / "node")
    with process:
        process.kill()
        source = live_source(process.url, backoff=lambda attempt: 3_600)
        async with Watching(source) as watching:
            link = await watching.until(LinkState.GONE)
            assert link.next_try_ms is not None
            process.start()
            source.retry_now()
            await watching.until(LinkState.LIVE)


def test_the_wait_before_a_try_grows_and_is_never_the_same_for_all() -> None:
    waits = [full_jitter(1) for _ in range(200)]
    assert 0 <= min(waits) < max(waits) <= 0.5
    waits = [full_jitter(50) for _ in range(200)]
    assert 0.5 < max(waits) <= BACKOFF_MAX and min(waits) < BACKOFF_MAX / 2
