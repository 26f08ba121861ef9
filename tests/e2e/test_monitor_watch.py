"""Watching a node: what one sees first, how it stays true, and what it costs the node when somebody does not read."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from monitor_client import Watch
from msgspec.structs import replace
from support import RunningNode, StartNode, bearer, eventually, full_disk, token
from websockets.exceptions import InvalidStatus

from kama.monitor_protocol import ACTIONS, Bye, Client, Delta, Events, History, Node, Result, Snap, Snapshot
from kama.server.watch.watcher import Watcher

# --- who may


async def refusal(node: RunningNode, headers: dict[str, str], **options: Any) -> tuple[int, int]:
    """HTTP status and code of the envelope."""
    with pytest.raises(InvalidStatus) as refused:
        async with Watch(node.url, headers=headers, **options):
            pass
    answer = refused.value.response
    return answer.status_code, json.loads(answer.body or b"")["code"]


async def test_chat_users_and_strangers_may_not_watch(node: RunningNode) -> None:
    assert await refusal(node, bearer("U1")) == (403, 1007)
    assert await refusal(node, {}) == (401, 1006)
    assert await refusal(node, {"Authorization": "Bearer nonsense"}) == (401, 1006)
    assert len(node.node.watchers) == 0


async def test_a_page_of_another_origin_may_not_watch(node: RunningNode) -> None:
    headers = {**bearer("U1", "admin"), "Origin": "http://elsewhere.example"}
    assert await refusal(node, headers) == (403, 1007)


async def test_a_browser_gives_its_token_as_a_subprotocol(node: RunningNode) -> None:
    async with Watch(node.url, headers={}, subprotocols=["bearer", token("U1", "viewer")]) as watch:
        assert watch.socket.subprotocol == "bearer"
        assert (await watch.hello()).user_id == "U1"


async def test_a_plain_request_is_told_to_upgrade(node: RunningNode) -> None:
    answer = await node.request("GET", "/monitor/ws", headers=bearer("U1", "viewer"))
    assert (answer.status_code, answer.headers["Upgrade"]) == (426, "websocket")


async def test_the_hello_says_what_the_role_may_do(node: RunningNode) -> None:
    for role, actions in (("viewer", []), ("admin", list(ACTIONS))):
        async with Watch(node.url, role=role) as watch:
            hello = await watch.hello()
            assert (hello.role, hello.actions, hello.node, hello.mode) == (role, actions, node.node.name, "channel")


# --- what one sees


async def test_who_asks_for_nothing_gets_a_snap_all_the_same(node: RunningNode) -> None:
    async with Watch(node.url) as watch:
        await watch.wait_for(lambda: watch.of(Delta))
        assert [type(frame) for frame in watch.frames[:3]][1:] == [History, Snap]
        assert [each.name for each in watch.of(Snap)[0].nodes] == [node.node.name]


async def test_the_last_seconds_are_there_at_once(node: RunningNode) -> None:
    await eventually(lambda: len(node.node.view.vitals.points) >= 2)
    async with Watch(node.url) as watch:
        (history,) = await watch.wait_for(lambda: watch.of(History))
        assert len(history.points) >= 2
        assert [point.at_ms for point in history.points] == sorted(point.at_ms for point in history.points)


async def test_a_watcher_sees_the_connections_that_it_asked_for(node: RunningNode) -> None:
    async with AsyncExitStack() as stack:
        for number in range(5):
            await stack.enter_async_context(node.login(f"U{number}", device=f"d{number}"))
        watch = await stack.enter_async_context(Watch(node.url))
        asked = {"sort": "user", "descending": False, "limit": 2, "filter": "!user:U0"}
        snap = await watch.snap(clients=asked, interval_ms=300)
        assert [(client.user_id, client.device) for client in snap.clients] == [("U1", "d1"), ("U2", "d2")]
        assert (snap.matched, snap.total, snap.interval_ms) == (4, 5, 300)


def still(client: Client) -> Client:
    return replace(client, in_rate=0.0, out_rate=0.0)


def lasting(node: Node) -> Node:
    """Without what is of the moment."""
    return replace(
        node, beat_ms=0, queues={}, loop_lag_ms=0, cpu_percent=0, rss_bytes=0, sent_p50_ms=None, sent_p99_ms=None
    )


async def test_all_deltas_together_are_what_a_new_watcher_sees(node: RunningNode) -> None:
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(Watch(node.url))
        await watch.snap(clients={"sort": "user", "limit": 500})
        for turn in range(6):
            peers = [await stack.enter_async_context(node.login(f"U{turn}{number}")) for number in range(5)]
            await peers[0].say(peers[1].user_id)
            await peers[1].wait_for_many(1)
            await peers[2].error_to("nonsense")
            await node.request("POST", "/admin/kick", json={"user_id": f"U{turn}3"}, headers=bearer("Ua", "admin"))
            await asyncio.sleep(0.2)
        await eventually(lambda: not node.node.status.depth)
        async with asyncio.timeout(15):
            while True:
                async with Watch(node.url) as other:
                    snap = await other.snap(clients={"sort": "user", "limit": 500}, events=None)
                seen = {id: still(client) for id, client in watch.clients.items()}
                if (
                    seen == {client.id: still(client) for client in snap.clients}
                    and list(map(lasting, watch.nodes.values())) == list(map(lasting, snap.nodes))
                    and watch.closed_clients[-100:] == snap.closed
                ):
                    break
        assert (len(seen), len(snap.closed)) == (24, 6)
        assert watch.faults == []


async def test_a_closed_connection_is_shown_with_its_reason(node: RunningNode) -> None:
    async with Watch(node.url) as watch:
        await watch.snap()
        async with node.login("U1", device="phone"):
            await watch.wait_for(lambda: watch.clients)
        (gone,) = await watch.wait_for(lambda: watch.closed_clients)
        assert (gone.user_id, gone.device, gone.code) == ("U1", "phone", 1000)
        await watch.wait_for(lambda: not watch.clients)


async def test_the_most_that_waited_is_shown_to_each_watcher(node: RunningNode) -> None:
    async with Watch(node.url) as one, Watch(node.url) as two, node.login("U1") as peer:
        await one.snap()
        await two.snap()
        for number in range(30):
            await peer.say("U2", str(number))
        for watch in (one, two):

            def waited(watch: Watch = watch) -> bool:
                nodes = [each for frame in watch.of(Delta) for each in frame.nodes]
                return any(each.queues["status"].high for each in nodes)

            await watch.wait_for(waited)


async def test_events_tell_what_goes_wrong(node: RunningNode) -> None:
    async with Watch(node.url) as watch, node.login("U1") as peer:
        await watch.snap(events={"per_second": 0})
        await peer.error_to("nonsense")
        refused = await watch.event("refused")
        assert (refused.user_id, refused.code) == ("U1", 1001)
        await node.refusal("nobody")
        login = await watch.event("refused", lambda event: event.text.startswith("login"))
        assert (login.code, login.user_id) == (1001, "")
        await peer.say("U404", type=3, content="", av_data='{"messageId":"PROXY","type":"candidate"}')
        signal = await watch.event("undeliverable")
        assert signal.receive_id == "U404"
        assert {event.kind for event in watch.events} <= {"refused", "undeliverable"}


async def test_a_store_that_fails_and_is_back_is_an_alert_each(node: RunningNode) -> None:
    async with Watch(node.url) as watch, node.login("U1") as peer:
        await watch.snap()
        with full_disk(node):
            await peer.say("U2")
            assert (await watch.event("alert")).text == "store: failing: messages are not being stored"
            await watch.wait_for(lambda: "store" in watch.nodes[node.node.name].troubles)
        await watch.event("alert", lambda event: event.text == "store: works again")
        await watch.wait_for(lambda: not watch.nodes[node.node.name].troubles)


async def test_a_snapshot_is_one_document(node: RunningNode) -> None:
    async with node.login("U1"):
        assert (await node.request("GET", "/monitor/snapshot", headers=bearer("U1"))).status_code == 403
        answer = await node.request("GET", "/monitor/snapshot", headers=bearer("U9", "viewer"))
        body = answer.json()
        assert (answer.status_code, body["code"]) == (200, 1000)
        snapshot = msgspec.convert(body["data"], Snapshot)
        assert [client.user_id for client in snapshot.snap.clients] == ["U1"]
        assert snapshot.hello.actions == []
        assert "opened" in {event.kind for event in snapshot.events}


# --- slow ones, and too many


async def watcher_of(node: RunningNode) -> Watcher:
    """The node's side of the only one who watches."""
    (watcher,) = await eventually(lambda: list(node.node.watchers._watchers))
    assert isinstance(watcher, Watcher)
    return watcher


async def test_who_does_not_ack_gets_fewer_frames_until_it_does(node: RunningNode) -> None:
    async with Watch(node.url, acks=False) as watch:
        await watch.snap(interval_ms=250)
        await watch.wait_for(lambda: watch.of(Delta) and watch.of(Delta)[-1].interval_ms >= 500)
        watch.acks = True
        await watch.wait_for(lambda: watch.of(Delta)[-1].interval_ms == 250)


async def test_who_stops_reading_costs_one_frame_and_then_sees_what_is_new(node: RunningNode) -> None:
    async with Watch(node.url) as watch:
        await watch.snap(events={"per_second": 1000})
        watcher = await watcher_of(node)
        transport: Any = watcher._socket.transport  # type: ignore[attr-defined]
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        watch.freeze()

        async def after_a_flood(count: int = 1000) -> tuple[int, int]:
            """What the node holds for the watcher, and how many frames it has made, once much has happened."""
            for number in range(count):
                node.node.journal.refused("U1", "c1", 1001, f"{number} {'x' * 100}")
            await asyncio.sleep(0.3)
            return transport.get_write_buffer_size(), watcher._frames.seq

        before = await after_a_flood()
        async with asyncio.timeout(20):
            while (now := await after_a_flood()) != before or not now[0]:
                before = now
        held, made = before
        assert held < 1 << 20
        for _ in range(8):
            assert await after_a_flood(5000) == (held, made)

        async with node.login("Unew"):
            thawed_ms = time.time() * 1000
            watch.thaw()
            await watch.wait_for(lambda: "Unew" in {client.user_id for client in watch.clients.values()})
        fresh = [frame for frame in watch.of(Delta) if frame.seq > made]
        assert fresh[0].at_ms >= thawed_ms
        assert "Unew" in {client.user_id for client in fresh[0].clients}
        assert watch.faults == []
        lost = await watch.wait_for(lambda: [frame.lost for frame in watch.of(Events) if frame.lost])
        assert sum(lost) >= 1000


async def test_a_ninth_watcher_is_sent_away_until_one_leaves(node: RunningNode) -> None:
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(Watch(node.url)) for _ in range(8)]
        for watch in watches:
            await watch.hello()
        async with Watch(node.url) as ninth:
            assert (await ninth.wait_for_close())[0] == 1001
            assert [frame.reason for frame in ninth.of(Bye)] == ["too_many_watchers"]
        await watches[0].socket.close()
        await eventually(lambda: len(node.node.watchers) == 7)
        async with Watch(node.url) as again:
            await again.hello()


async def test_nothing_is_left_of_who_has_watched(node: RunningNode) -> None:
    async with Watch(node.url) as watch:
        await watch.snap()
        assert len(node.node.view._highs) == 2
    await eventually(lambda: len(node.node.watchers) == 0 and len(node.node.view._highs) == 1)


# --- ends


async def test_a_token_that_ends_ends_the_watching(node: RunningNode) -> None:
    headers = {"Authorization": f"Bearer {token('U1', 'viewer', ttl=1)}"}
    async with Watch(node.url, headers=headers) as watch:
        assert await watch.wait_for_close() == (4005, "token expired")
        assert watch.of(Bye)[0].reason == "auth_expired"


async def test_a_shutdown_says_so_first(start_node: StartNode) -> None:
    node = await start_node()
    async with Watch(node.url) as watch:
        await watch.hello()
        node.stop()
        assert (await watch.wait_for_close())[0] == 1001
        assert watch.of(Bye)[0].reason == "shutdown"


# --- frames that are wrong


@pytest.mark.parametrize(
    ("frame", "request_id", "words"),
    [
        ("{", "", "expected one JSON object"),
        (b"\xff\xfe", "", "expected one JSON object"),
        ("[1]", "", "expected object, got"),
        ('{"type":"nonsense","request":"r1"}', "r1", "nonsense"),
        ('{"type":"trace","request":"r1","uuid":"x"}', "r1", "uuid"),
        ('{"type":"sub","interval_ms":1}', "", "interval_ms"),
        ('{"type":"sub","clients":{"filter":"foo>1"}}', "", "expected a field of"),
        ('{"type":"sub","events":{"filter":"!"}}', "", "behind !"),
    ],
)
async def test_a_wrong_frame_is_told_why_and_the_watching_goes_on(
    node: RunningNode, frame: str | bytes, request_id: str, words: str
) -> None:
    async with Watch(node.url, role="admin") as watch:
        await watch.say(frame)
        result = (await watch.wait_for(lambda: watch.of(Result)))[0]
        assert result.error is not None
        assert (result.request, result.error.code) == (request_id, 1001)
        assert words in result.error.message
        assert (await watch.snap(interval_ms=400)).interval_ms == 400


async def test_a_wrong_sub_leaves_the_one_before(node: RunningNode) -> None:
    async with Watch(node.url) as watch, node.login("U1"), node.login("U2"):
        await watch.snap(clients={"filter": "user:U1"})
        await watch.say({"type": "sub", "clients": {"filter": "user:U2"}, "events": {"filter": "foo>1"}})
        await watch.wait_for(lambda: watch.of(Result))
        before = len(watch.of(Delta))
        await watch.wait_for(lambda: len(watch.of(Delta)) > before + 1)
        assert {client.user_id for client in watch.clients.values()} == {"U1"}


async def test_who_only_sends_nonsense_is_closed(node: RunningNode) -> None:
    async with Watch(node.url) as watch:
        for _ in range(200):
            await watch.say("nonsense")
        assert await watch.wait_for_close() == (4009, "too many refused frames")
