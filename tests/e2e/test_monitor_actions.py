"""What a watcher may ask: what became of a message, what a user has, and for administrators what to do about it."""

from __future__ import annotations

import pytest
from monitor_client import Watch
from sqlalchemy.ext.asyncio import create_async_engine
from support import RunningNode, StartNode, bearer, eventually, text_message

from kama.monitor_protocol import Bye, MessageTrace, Outcome, Result, UserDetail
from kama.server.snowflake import EPOCH_MS


def outcome(result: Result) -> Outcome:
    assert result.error is None, result.error
    assert result.outcome is not None
    return result.outcome


def code(result: Result) -> int:
    assert result.error is not None
    return result.error.code


async def traced(watch: Watch, uuid: str) -> MessageTrace:
    found = outcome(await watch.ask("trace", uuid=uuid)).trace
    assert found is not None
    return found


async def described(watch: Watch, user_id: str) -> UserDetail:
    found = outcome(await watch.ask("user", user_id=user_id)).user
    assert found is not None
    return found


# --- the store


async def test_a_store_that_cannot_be_reached_is_1010_and_the_watching_goes_on(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a refused connection raises, SQLAlchemy lets pass as it is."""
    nowhere = create_async_engine("postgresql+asyncpg://kama@127.0.0.1:1/kama")
    async with Watch(node.url) as watch:
        with monkeypatch.context() as patch:
            patch.setattr(node.node.database, "_reader", nowhere)
            assert code(await watch.ask("user", user_id="U1")) == 1010
        assert not (await described(watch, "U1")).clients


# --- a message


async def test_a_trace_lists_the_steps_of_a_message_in_their_order(node: RunningNode) -> None:
    async with Watch(node.url) as watch, node.login("U1") as sender, node.login("U2") as receiver:
        await sender.say("U2", "hello")
        message = (await receiver.wait_for_many(1))[0]
        await receiver.send({"type": "read", "uuid": message["uuid"]})
        await watch.event("read")
        found = await traced(watch, message["uuid"])
        assert [step.kind for step in found.steps] == ["accepted", "stored", "routed", "written", "sent", "read"]
        times = [step.at_ms for step in found.steps]
        assert times == sorted(times)
        assert times[0] >= message["created_ms"]
        accepted, stored, routed, written, *_ = found.steps
        assert (accepted.send_id, accepted.receive_id, accepted.size) == ("U1", "U2", 5)
        assert accepted.connection == node.node.registry.get("U1")[0].id
        assert (stored.seq, stored.count, stored.conversation) == (1, 1, "U1_U2")
        assert stored.took_ms > 0
        assert (routed.members, routed.online) == (2, 2)
        assert (written.user_id, written.connection) == ("U2", node.node.registry.get("U2")[0].id)
        assert (found.status, found.seq, found.size, found.evicted) == (3, 1, 5, False)
        assert "hello" not in str(found)


async def test_a_message_to_nobody_online_ends_with_its_routing(node: RunningNode) -> None:
    async with Watch(node.url) as watch, node.login("U1") as sender:
        await sender.say("U2")
        message = (await sender.wait_for_many(1))[0]
        found = await traced(watch, message["uuid"])
        assert [step.kind for step in found.steps] == ["accepted", "stored", "routed"]
        assert (found.steps[-1].online, found.status) == (1, 0)


async def test_a_group_message_is_written_first_to_one_of_its_members(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2", "U3")
    async with Watch(node.url) as watch, node.login("U1") as sender, node.login("U2") as two, node.login("U3") as three:
        await sender.say("G1")
        message = (await two.wait_for_many(1))[0]
        await three.wait_for_many(1)
        await watch.event("sent")
        kinds = [step.kind for step in (await traced(watch, message["uuid"])).steps]
        assert kinds == ["accepted", "stored", "routed", "written", "sent"]


async def test_a_retry_is_traced_as_a_duplicate(node: RunningNode) -> None:
    async with Watch(node.url) as watch, node.login("U1") as sender:
        for _ in range(2):
            await sender.say("U2", client_msg_id="m1")
        await sender.wait_for_many(2, lambda frame: frame.get("type") == "ack")
        again = await watch.event("stored", lambda event: event.text == "duplicate")
        assert [step.kind for step in (await traced(watch, again.uuid)).steps] == ["accepted", "stored"]


async def test_what_happened_before_the_journal_began_is_evicted(node: RunningNode) -> None:
    async with Watch(node.url) as watch:
        old = await traced(watch, str((1_500_000_000_000 - EPOCH_MS) << 22))
        new = await traced(watch, str(node.node.ids.next()))
        assert (old.evicted, old.status, old.steps) == (True, None, [])
        assert (new.evicted, new.status, new.steps) == (False, None, [])


async def test_a_number_that_is_no_message_is_nothing(node: RunningNode) -> None:
    async with Watch(node.url) as watch:
        assert (await traced(watch, "9" * 19)).status is None


# --- a user


async def test_a_user_is_its_connections_and_groups(node: RunningNode) -> None:
    await node.create_group("G1", "U1")
    await node.create_group("G2", "U9", "U1")
    async with Watch(node.url) as watch, node.login("U1", device="phone"), node.login("U1", device="laptop"):
        found = await described(watch, "U1")
        assert {client.device for client in found.clients} == {"phone", "laptop"}
        assert (found.groups, found.elsewhere) == (["G1", "G2"], 0)
        nobody = await described(watch, "U404")
        assert (nobody.clients, nobody.groups) == ([], [])


# --- actions


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("kick", {"user_id": "U1"}),
        ("send", {"send_id": "U1", "receive_id": "U2", "content": "hello"}),
        ("drain", {}),
    ],
)
async def test_a_viewer_may_only_look(node: RunningNode, kind: str, details: dict[str, str]) -> None:
    async with Watch(node.url) as watch, node.login("U1") as peer:
        assert code(await watch.ask(kind, **details)) == 1007
        await peer.ping()
        assert peer.closed is None
    assert not node.node.draining
    assert await node.history("U1", "U2") == []


async def test_a_kick_closes_all_connections_of_a_user_and_is_on_record(node: RunningNode) -> None:
    async with Watch(node.url, role="admin") as watch, node.login("U1") as one, node.login("U1") as two:
        assert outcome(await watch.ask("kick", user_id="U1", reason="rude")).closed == 2
        assert [await peer.wait_for_close() for peer in (one, two)] == [(4002, "rude")] * 2
        action = await watch.event("action")
        assert (action.user_id, action.text) == ("Uwatch", "kicked (target: U1, reason: rude, closed: 2)")


async def test_a_kick_may_be_of_one_connection(node: RunningNode) -> None:
    async with Watch(node.url, role="admin") as watch, node.login("U1") as one, node.login("U1") as two:
        chosen = node.node.registry.get("U1")[1].id
        assert outcome(await watch.ask("kick", user_id="U1", connection=chosen)).closed == 1
        await two.wait_for_close()
        await one.ping()


@pytest.mark.parametrize(
    ("method", "path", "body", "told"),
    [
        ("POST", "/admin/kick", {"user_id": "U1"}, "kicked (target: U1, closed: 0)"),
        ("POST", "/admin/groups", {"group_id": "G2", "owner_id": "U1"}, "group created (group: G2, members: 1)"),
        ("POST", "/admin/groups/G1/members", {"add": ["U5"]}, "group changed (group: G1, added: 1, removed: 0)"),
        ("DELETE", "/admin/groups/G1", None, "group dissolved (group: G1)"),
    ],
)
async def test_what_is_done_over_http_is_an_event_too(
    node: RunningNode, method: str, path: str, body: object, told: str
) -> None:
    await node.create_group("G1", "U1")
    async with Watch(node.url) as watch:
        answer = await node.request(method, path, json=body, headers=bearer("Uboss", "admin"))
        assert answer.status_code == 200
        action = await watch.event("action", lambda event: event.user_id == "Uboss")
        assert action.text == told


async def test_a_message_is_sent_as_a_user_and_once_however_often_it_is_asked_for(node: RunningNode) -> None:
    async with Watch(node.url, role="admin") as watch, node.login("U2") as peer:
        asked = {"request": "once", "send_id": "U1", "receive_id": "U2", "content": "are you there?"}
        first = outcome(await watch.ask("send", **asked))
        again = outcome(await watch.ask("send", **asked))
        assert (again.uuid, first.conversation, first.seq) == (first.uuid, "U1_U2", 1)
        await peer.wait_for_many(1)
        assert [message["content"] for message in await node.history("U1", "U2")] == ["are you there?"]
        action = await watch.event("action")
        assert "message sent (sender: U1, target: U2, uuid: " in action.text
        assert "are you there" not in str(watch.events)


async def test_a_message_that_is_refused_says_why(node: RunningNode) -> None:
    await node.create_group("G1", "U1")
    async with Watch(node.url, role="admin") as watch:
        asked = {"send_id": "U2", "content": "x"}
        assert code(await watch.ask("send", receive_id="G1", **asked)) == 1007
        assert code(await watch.ask("send", receive_id="G404", **asked)) == 1003
        assert code(await watch.ask("send", receive_id="U3", send_id="U2", content="x" * 50_001)) == 1001


async def test_a_drain_ends_the_node_and_says_so(start_node: StartNode) -> None:
    node = await start_node()
    async with Watch(node.url, role="admin") as watch:
        outcome(await watch.ask("drain"))
        assert (await watch.wait_for_close())[0] == 1001
        assert watch.of(Bye)[0].reason == "shutdown"
    await eventually(lambda: node.node.draining)


async def test_who_asks_too_much_is_told_to_wait(node: RunningNode) -> None:
    async with Watch(node.url) as watch, node.login("U1") as sender:
        await sender.send(text_message("U1", "U2"))
        for number in range(80):
            await watch.say({"type": "user", "request": f"r{number}", "user_id": "U1"})
        results = await watch.wait_for(lambda: watch.of(Result) if len(watch.of(Result)) == 80 else [])
        refused = [result for result in results if result.error is not None]
        assert refused
        assert {code(result) for result in refused} == {1009}
        assert {result.request for result in results} == {f"r{number}" for number in range(80)}
