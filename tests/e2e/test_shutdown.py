"""The end of a node, asked for or not, and a store that stops taking and begins again."""

import asyncio
import json
import resource
import signal
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from support import NodeProcess, Peer, RunningNode, bearer, eventually, text_message

from kama.errors import Code


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "kama.db") as database:
        return database.execute(query).fetchall()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stores_delivers_and_says_goodbye(tmp_path: Path, number: signal.Signals) -> None:
    """KamaChat defect 17: there, what is queued at shutdown is lost, and a late message is a crash."""
    with NodeProcess(tmp_path) as node:
        async with Peer(node.url, "U1") as sender, Peer(node.url, "U2") as receiver:
            for count in range(50):
                await sender.say("U2", f"{count}", client_msg_id=f"{count}")
            node.signal(number)
            for peer in (sender, receiver):
                code, reason = await peer.wait_for_close()
                assert code == 1001
                assert 0 < json.loads(reason)["retry_after_ms"] <= 3000
        exit_code = await asyncio.to_thread(node.wait)
    acked = {frame["client_msg_id"] for frame in sender.of_type("ack")}
    refused = {frame["client_msg_id"] for frame in sender.of_type("error")}
    assert acked | refused == {f"{count}" for count in range(50)}
    stored = rows(tmp_path, "SELECT client_msg_id, status FROM message ORDER BY seq")
    assert {client_id for client_id, _ in stored} == acked
    assert [message["client_msg_id"] for message in receiver.messages] == [client_id for client_id, _ in stored]
    assert all(status == 1 for _, status in stored), "what was written to the receiver is marked before the end"
    assert exit_code in (-number, 128 + number)
    assert "Traceback" not in node.log.read_text()


async def test_who_still_owes_its_token_is_told_when_to_come_back(node: RunningNode) -> None:
    async with node.login("U1", ready=False, headers={}) as peer:
        await eventually(lambda: node.node.registry.pending)
        node.stop()
        code, reason = await peer.wait_for_close()
        assert code == 1001
        assert 0 < json.loads(reason)["retry_after_ms"] <= 3000


async def test_a_drain_sends_everybody_off_and_ends_in_time(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, KAMA_SERVER__DRAIN_TIMEOUT="10s") as node:
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(Peer(node.url, f"U{number}")) for number in range(300)]
            frozen = await stack.enter_async_context(Peer(node.url, "Ufrozen", frozen=True))
            node.signal(signal.SIGTERM)
            codes = {(await peer.wait_for_close())[0] for peer in peers}
            assert codes == {1001}
            await asyncio.to_thread(node.wait, 10)
            assert frozen.closed is None, "it reads nothing, and held nobody up"


async def test_while_it_drains_a_node_takes_nobody_in(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node:
        async with Peer(node.url, "Ufrozen", frozen=True):
            node.signal(signal.SIGTERM)
            await eventually(lambda: "draining" in node.log.read_text())
            with pytest.raises(OSError):
                async with Peer(node.url, "U1"):
                    pass
            await asyncio.to_thread(node.wait)


async def health(node: NodeProcess) -> tuple[int, dict[str, str]]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{node.url}/health/ready")
        return answer.status_code, answer.json()["checks"]


async def until_ready(node: NodeProcess, ready: bool) -> dict[str, str]:
    async with asyncio.timeout(20):
        while True:
            status, checks = await health(node)
            if (status == 200) == ready:
                return checks
            await asyncio.sleep(0.05)


async def until_folded(node: NodeProcess) -> None:
    """A history shows what was accepted before, and waits until the database has it."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        query = {"userOneId": "U1", "userTwoId": "U2"}
        answer = await client.get(f"{node.url}/message/getMessageList", params=query, headers=bearer("U1"))
        assert answer.is_success


async def test_a_full_disk_costs_no_message_and_heals_without_a_restart(tmp_path: Path) -> None:
    """KamaChat defect 9: there, a message that could not be stored is delivered all the same."""
    limits = {"KAMA_LIMITS__CHANNEL_SIZE": "5", "KAMA_LIMITS__PUBLISH_TIMEOUT": "500ms"}
    with NodeProcess(tmp_path, **limits) as node:
        async with Peer(node.url, "U1") as sender, Peer(node.url, "U2") as receiver:
            for count in range(20):
                await sender.say("U2", "x" * 20_000, client_msg_id=f"before {count}")
            await sender.wait_for_many(20, lambda frame: frame.get("type") == "ack")

            # The process that folds the log began without the limit: a child has its parent's.
            await until_folded(node)
            no_limit = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
            (log,) = (tmp_path / "kama.db-log").glob("*.log")
            full = log.stat().st_size
            resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (full, no_limit[1]))
            # More than the node reads before its store has had a turn.
            for count in range(60):
                await sender.say("U2", "x" * 20_000, client_msg_id=f"during {count}")
            busy = await sender.wait_for(lambda frame: frame.get("type") == "error")
            assert busy["code"] == Code.BUSY
            assert "failing" in (await until_ready(node, False))["store"]
            assert len(sender.of_type("ack")) == 20
            assert len(receiver.messages) == 20, "what is not stored is not delivered"

            resource.prlimit(node.pid, resource.RLIMIT_FSIZE, no_limit)
            await until_ready(node, True)
            await sender.wait_for_many(
                60,
                lambda frame: (
                    frame.get("type") in ("ack", "error") and frame.get("client_msg_id", "").startswith("during")
                ),
            )
            acked = [frame["client_msg_id"] for frame in sender.of_type("ack")]
            await receiver.wait_for_many(len(acked))
            assert [message["client_msg_id"] for message in receiver.messages] == acked
            assert 20 < len(acked) < 80


async def test_a_second_node_on_the_same_port_says_so_and_leaves_the_first_alone(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "one") as node:
        port = int(node.url.rpartition(":")[2])
        second = NodeProcess(tmp_path / "two", port=port)
        with pytest.raises(AssertionError, match="cannot listen"):
            second.start()
        async with Peer(node.url, "U1") as peer:
            await peer.send(text_message("U1", "U1"))
            await peer.wait_for_many(1)
