"""Health and metrics: the truth about the node, for whoever asks."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import Frame, RunningNode, StartNode, bearer, eventually, full_disk, text_message


async def _ready(node: RunningNode) -> tuple[int, Frame]:
    answer = await node.request("GET", "/health/ready")
    return answer.status_code, answer.json()


async def _metrics(node: RunningNode) -> dict[str, float]:
    """Sample name, with its labels if it has any -> value."""
    answer = await node.request("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    named = {f"{sample.name}{sample.labels or ''}": sample.value for sample in samples}
    assert len(named) == len(samples)
    return named


# --- health --------------------------------------------------------------------------------------------


async def test_a_node_is_live_and_ready_for_anybody_to_see(node: RunningNode) -> None:
    live = await node.request("GET", "/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    checks = dict.fromkeys(("store", "broker", "consumer", "draining", "log", "cache"), "ok")
    assert await _ready(node) == (200, {"status": "ready", "node": f"127.0.0.1:{node.port}", "checks": checks})


async def test_a_draining_node_is_live_and_not_ready(node: RunningNode) -> None:
    await node.node.drain()
    status, body = await _ready(node)
    assert (status, body["status"], body["checks"]["draining"]) == (503, "not ready", "yes")
    assert (await node.request("GET", "/health/live")).status_code == 200


async def test_while_the_store_fails_nothing_is_acked_or_delivered_and_then_everything_is(
    node: RunningNode,
) -> None:
    """KamaChat defect 9: there, what could not be stored was delivered all the same."""
    async with node.login("U1") as sender, node.login("U2") as receiver:
        with full_disk(node):
            for number in range(3):
                await sender.say("U2", str(number), client_msg_id=f"m{number}")
            await eventually(lambda: node.node.chat.store_failing)
            status, body = await _ready(node)
            assert (status, body["status"]) == (503, "not ready")
            assert body["checks"]["store"] == "failing: messages are not being stored"
            for peer in (sender, receiver):
                await peer.ping()
                assert peer.messages == peer.of_type("ack") == []
            assert (await _metrics(node))["kama_store_failing"] == 1
        assert [message["content"] for message in await receiver.wait_for_many(3)] == ["0", "1", "2"]
        await sender.wait_for_many(3, lambda frame: frame["type"] == "ack")
        assert (await _ready(node))[0] == 200
        assert [message["seq"] for message in await node.history("U1", "U2")] == [1, 2, 3]


async def test_while_the_store_fails_a_full_queue_refuses_with_1005(start_node: StartNode) -> None:
    """KamaChat defect 12: there, a sender never heard that its message was lost."""
    node = await start_node(limits={"channel_size": 2, "publish_timeout": 0.2})
    async with node.login("U1") as sender:
        with full_disk(node):
            await sender.say("U2", "in hand")
            await eventually(lambda: node.node.chat.store_failing)
            for number in (1, 2):
                await sender.say("U2", f"queued {number}")
            error = await sender.error_to(text_message("U1", "U2", "no room", client_msg_id="m4"))
            assert (error["code"], error["client_msg_id"]) == (1005, "m4")
            body = text_message("U1", "U2", "no room either")
            answer = await node.request("POST", "/message/send", json=body, headers=bearer("U1"))
            assert (answer.status_code, answer.json()["code"]) == (503, 1005)
        await sender.wait_for_many(3)
        assert [message["content"] for message in sender.messages] == ["in hand", "queued 1", "queued 2"]


async def test_a_cache_that_is_away_is_no_reason_to_send_clients_elsewhere(start_node: StartNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    node = await start_node(redis={"url": f"redis://127.0.0.1:{port}/0"})
    async with node.login("U1") as peer:
        await peer.say("U2")
        await peer.wait_for_many(1)
    assert len(await node.history("U1", "U2")) == 1
    status, body = await _ready(node)
    assert (status, body["status"]) == (200, "ready")
    assert body["checks"]["cache"] == "degraded: history comes from the store"
    assert (await _metrics(node))["kama_cache_up"] == 0


async def test_health_of_a_closed_database_says_why(node: RunningNode) -> None:
    await node.node.database.close()
    status, body = await _ready(node)
    assert (status, body["checks"]["store"]) == (503, "failing: RuntimeError")


async def test_a_broker_that_does_not_answer_sends_clients_elsewhere(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        raise TimeoutError

    monkeypatch.setattr(node.node.broker, "check", check)
    status, body = await _ready(node)
    assert (status, body["checks"]["broker"], body["checks"]["store"]) == (503, "failing: TimeoutError", "ok")


# --- metrics -------------------------------------------------------------------------------------------


async def test_metrics_count_what_happened(node: RunningNode) -> None:
    async with node.login("U1") as phone, node.login("U1"), node.login("U2") as other:
        for _ in range(3):
            await phone.say("U2", "once", client_msg_id="m1")
        await phone.say("U2", "twice")
        await phone.send({"type": 3, "send_id": "U1", "receive_id": "U2", "av_data": "{}"})
        await phone.send({"type": 3, "send_id": "U1", "receive_id": "U9", "av_data": "{}"})
        await phone.error_to("nonsense")
        await other.wait_for_many(3)
        await eventually(lambda: node.node.chat.counters.ephemeral == 2)
        found = await _metrics(node)
        expected = {
            "kama_messages_accepted_total": 6,
            "kama_messages_stored_total": 2,
            "kama_messages_duplicate_total": 2,
            "kama_messages_offered_total": 6,
            "kama_messages_not_stored_total": 0,
            "kama_signals_total": 2,
            "kama_signals_dropped_total": 1,
            "kama_frames_refused_total": 1,
            "kama_store_failures_total": 0,
            "kama_connections": 3,
            "kama_users": 2,
            "kama_transmit_depth": 0,
            "kama_draining": 0,
            "kama_cache_up": 1,
        }
        assert {name: found[name] for name in expected} == expected


async def test_metrics_count_connections_by_how_they_ended(node: RunningNode) -> None:
    async with node.login("U1") as kicked, node.login("U2"):
        body = {"user_id": "U1"}
        await node.request("POST", "/admin/kick", json=body, headers=bearer("Uadmin", "admin"))
        await kicked.wait_for_close()
    await eventually(lambda: not len(node.node.registry))
    found = await _metrics(node)
    assert found["kama_connections_closed_total{'code': '4002'}"] == 1
    assert found["kama_connections_closed_total{'code': '1000'}"] == 1
    assert found["kama_connections"] == 0


async def test_metrics_count_the_cache_and_the_limits(start_node: StartNode) -> None:
    node = await start_node(limits={"messages_per_second": 0.1, "burst": 1})
    async with node.login("U1") as peer:
        await peer.say("U2")
        await peer.wait_for_many(1)
        assert (await peer.error_to(text_message("U1", "U2")))["code"] == 1009
    for _ in range(2):
        await node.history("U1", "U2")
        await eventually(lambda: not node.node.cache.depth)
    found = await _metrics(node)
    assert (found["kama_rate_limited_total"], found["kama_frames_refused_total"]) == (1, 1)
    assert (found["kama_cache_hits_total"], found["kama_cache_misses_total"]) == (1, 1)


async def test_two_nodes_in_one_process_count_apart(tmp_path: Path, start_node: StartNode) -> None:
    one = await start_node()
    two = await start_node(store={"url": f"sqlite+aiosqlite:///{tmp_path / 'two.db'}"})
    async with one.login("U1"):
        found = await asyncio.gather(_metrics(one), _metrics(two))
    assert [each["kama_connections"] for each in found] == [1, 0]


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
async def test_whoever_only_asks_for_the_head_gets_it(node: RunningNode, path: str) -> None:
    answer = await node.request("HEAD", path)
    assert (answer.status_code, answer.content) == (200, b"")
