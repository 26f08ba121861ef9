"""kill -9 of a node whose database is behind its log: the next start has everything that was acked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest
from support import Frame, NodeProcess, Peer, StartNode, bearer, standing_still

from kama.server.store.database import Database
from kama.server.store.folder import Folder
from kama.server.store.logged import LoggedDatabase

COUNT = 50


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path) as started:
        yield started


async def history(node: NodeProcess) -> list[Frame]:
    async with httpx2.AsyncClient(trust_env=False) as client:
        query = {"userOneId": "U1", "userTwoId": "U2", "limit": "200"}
        answer = await client.get(f"{node.url}/message/getMessageList", params=query, headers=bearer("U1"))
        data: list[Frame] = answer.raise_for_status().json()["data"]
        return data


def rows(folder: Path) -> list[tuple[int, str]]:
    with contextlib.closing(sqlite3.connect(folder / "kama.db")) as database:
        return database.execute("SELECT seq, content FROM message ORDER BY seq").fetchall()


async def say_and_be_acked(node: NodeProcess, first: int, count: int) -> dict[str, str]:
    """The uuids that the node acked, by client_msg_id."""
    async with Peer(node.url, "U1") as sender:
        for number in range(first, first + count):
            await sender.say("U2", str(number), client_msg_id=f"m{number}")
        acks = await sender.wait_for_many(count, lambda frame: frame["type"] == "ack")
        return {ack["client_msg_id"]: ack["uuid"] for ack in acks}


@contextlib.asynccontextmanager
async def nothing_folded(node: NodeProcess, folder: Path) -> AsyncIterator[int]:
    """The process that folds stands still, by its id. It ends with the block, by then an orphan."""
    await say_and_be_acked(node, 0, 1)
    assert len(await history(node)) == 1
    (pid,) = node.children
    with standing_still(pid, folder / "kama.db"):
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)


async def kill_and_start(node: NodeProcess) -> None:
    await asyncio.to_thread(node.kill)
    await asyncio.to_thread(node.start)


async def test_what_was_acked_and_not_folded_is_in_the_database_before_the_node_listens_again(
    node: NodeProcess, tmp_path: Path
) -> None:
    async with nothing_folded(node, tmp_path):
        acked = await say_and_be_acked(node, 1, COUNT)
        assert len(acked) == COUNT
        assert rows(tmp_path) == [(1, "0")]
        await kill_and_start(node)
        assert rows(tmp_path) == [(number + 1, str(number)) for number in range(COUNT + 1)]
    shown = await history(node)
    assert {message["client_msg_id"]: message["uuid"] for message in shown[1:]} == acked


async def test_after_a_kill_seqs_go_on_and_what_comes_again_gets_its_first_ack(
    node: NodeProcess, tmp_path: Path
) -> None:
    async with nothing_folded(node, tmp_path):
        acked = await say_and_be_acked(node, 1, COUNT)
        await kill_and_start(node)
    again = await say_and_be_acked(node, 1, COUNT + 1)
    assert {name: uuid for name, uuid in again.items() if name in acked} == acked
    assert [message["content"] for message in await history(node)] == [str(number) for number in range(COUNT + 2)]
    assert [message["seq"] for message in await history(node)] == list(range(1, COUNT + 3))


async def test_an_orphan_that_goes_on_beside_the_next_nodes_own_does_no_harm(node: NodeProcess, tmp_path: Path) -> None:
    async with nothing_folded(node, tmp_path) as orphan:
        await say_and_be_acked(node, 1, COUNT)
        await kill_and_start(node)
        os.kill(orphan, signal.SIGCONT)
        await say_and_be_acked(node, COUNT + 1, COUNT)
        await history(node)
        assert [seq for seq, _ in rows(tmp_path)] == list(range(1, 2 * COUNT + 2))


# --- the same node, while its store is behind


async def test_while_the_store_stays_behind_messages_flow_and_a_history_says_so(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    async with node.login("U1") as sender, node.login("U2") as receiver:
        await sender.say("U2", "before")
        await receiver.wait_for_many(1)
        await node.noted("U2", "U1_U2", 1)
        with stopped(node.node.database), monkeypatch.context() as patch:
            patch.setattr(Folder.wait, "__defaults__", (0.2,))
            await sender.say("U2", "meanwhile", client_msg_id="m")
            await sender.wait_for(lambda frame: frame["type"] == "ack")
            assert [message["content"] for message in await receiver.wait_for_many(2)] == ["before", "meanwhile"]
            await sender.wait_for(lambda frame: frame["type"] == "status" and frame["status"] == "sent")
            query = {"userOneId": "U1", "userTwoId": "U2"}
            answer = await node.request("GET", "/message/getMessageList", params=query, headers=bearer("U1"))
            assert (answer.status_code, answer.json()["code"]) == (500, 1010)
        assert [message["content"] for message in await node.history("U1", "U2")] == ["before", "meanwhile"]


async def test_when_too_much_waits_for_the_store_senders_are_told_and_nothing_is_lost(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node(limits={"channel_size": 2, "publish_timeout": 0.2})
    database = node.node.database
    assert isinstance(database, LoggedDatabase)
    async with node.login("U1") as sender:
        await sender.say("U2", "before")
        await sender.wait_for_many(1)
        await node.noted("U1", "U1_U2", 1)
        with stopped(database), monkeypatch.context() as patch:
            patch.setattr("kama.server.store.logged.UNFOLDED_MAX", 5)
            patch.setattr(Folder.wait, "__defaults__", (0.2,))
            for number in range(20):
                # Each in a turn of its own: what comes within one is taken together.
                await sender.say("U2", str(number), client_msg_id=f"m{number}")
                while node.node.chat.counters.accepted + len(sender.of_type("error")) < number + 2:
                    await asyncio.sleep(0.01)
            answers = await sender.wait_for_many(10, lambda frame: frame["type"] == "error")
            assert {answer["code"] for answer in answers} == {1005}
            assert 5 <= database.unfolded <= 5 + 2
        names = {f"m{number}" for number in range(20)}
        refused = {frame["client_msg_id"] for frame in sender.of_type("error")}
        acks = await sender.wait_for_many(20 - len(refused), lambda frame: frame["type"] == "ack", seconds=20)
        acked = [ack["client_msg_id"] for ack in acks]
        assert set(acked) == names - refused
        assert [message.get("client_msg_id") for message in await node.history("U1", "U2")] == [None, *acked]


@contextlib.contextmanager
def stopped(database: Database) -> Iterator[None]:
    """The process that folds for a node in this process stands still."""
    assert isinstance(database, LoggedDatabase)
    assert database.folder._process is not None
    with standing_still(database.folder._process.pid, database._file):
        yield
