"""How many connections a node and a user may have, and what another login of the same user does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support import RunningNode, StartNode, bearer, eventually, token

from kama.errors import CloseCode, RateLimited
from kama.server.ws_gateway import UserConn


async def test_a_full_node_is_busy(start_node: StartNode) -> None:
    """KamaChat defect 25: there, nothing capped the connections."""
    node = await start_node(limits={"connections": 1})
    async with node.login("U1"):
        refusal = await node.refusal("U2")
        assert (refusal.status, refusal.body["code"]) == (503, 1005)
        assert "1 of 1 connections (limits.connections)" in refusal.body["msg"]
        assert refusal.headers["Retry-After"] == "1"


async def test_a_full_node_takes_the_next_one_when_somebody_leaves(start_node: StartNode) -> None:
    node = await start_node(limits={"connections": 1})
    async with node.login("U1"):
        pass
    await eventually(lambda: not len(node.node.registry))
    async with node.login("U2") as peer:
        await peer.ping()


async def test_connections_that_still_owe_their_token_count(start_node: StartNode) -> None:
    node = await start_node(limits={"connections": 1})
    async with node.login("U1", ready=False, headers={}) as silent:
        await eventually(lambda: node.node.registry.pending)
        assert (await node.refusal("U2")).status == 503
        await silent.send({"type": "auth", "token": token("U1")})
        await silent.wait_for(lambda frame: frame.get("event") == "caught_up")
    await eventually(lambda: not len(node.node.registry) and not node.node.registry.pending)


async def test_one_user_has_a_limited_number_of_connections(start_node: StartNode) -> None:
    node = await start_node(limits={"connections_per_user": 2})
    async with node.login("U1"), node.login("U1"), node.login("U2"):
        refusal = await node.refusal("U1")
        assert (refusal.status, refusal.body["code"]) == (429, 1009)
        assert "2 of 2 connections (limits.connections_per_user)" in refusal.body["msg"]
        assert int(refusal.headers["Retry-After"]) > 0


async def test_the_limit_holds_for_a_token_that_comes_as_the_first_frame(start_node: StartNode) -> None:
    node = await start_node(limits={"connections_per_user": 1})
    async with node.login("U1", ready=False, headers={}) as late, node.login("U1"):
        await late.send({"type": "auth", "token": token("U1")})
        code, _ = await late.wait_for_close()
        assert (late.frames[-1]["code"], code) == (1009, 1001)


# --- allow, replace, reject ----------------------------------------------------------------------------


async def test_by_default_every_login_stays(node: RunningNode) -> None:
    """KamaChat defect 4: there, the second login took the first one's place in the map, and its messages."""
    async with node.login("U1", device="phone") as phone, node.login("U1", device="desk") as desk:
        await phone.say("U2", "from the phone")
        await desk.wait_for_many(1)
        await desk.say("U2", "from the desk")
        for peer in (phone, desk):
            messages = await peer.wait_for_many(2)
            assert [message["content"] for message in messages] == ["from the phone", "from the desk"]


async def test_the_end_of_one_connection_leaves_the_users_others(node: RunningNode) -> None:
    """KamaChat defect 4: an ending connection removes itself, never another one of the same user."""
    async with node.login("U1", device="stays") as stays, node.login("U2") as other:
        async with node.login("U1", device="leaves"):
            pass
        await eventually(lambda: len(node.node.registry.get("U1")) == 1)
        await other.say("U1")
        await stays.wait_for_many(1)


async def test_replace_sends_the_older_login_off_with_4001(start_node: StartNode) -> None:
    node = await start_node(limits={"multi_login": "replace"})
    async with node.login("U1") as older, node.login("U1"):
        code, reason = await older.wait_for_close()
        assert (code, reason) == (4001, "replaced by another login")


async def test_a_replaced_connections_cleanup_does_not_remove_the_new_one(start_node: StartNode) -> None:
    """KamaChat defect 4, with the replacement that its users added."""
    node = await start_node(limits={"multi_login": "replace"})
    async with node.login("U1") as older, node.login("U1") as newer, node.login("U2") as other:
        await older.wait_for_close()
        await eventually(lambda: node.node.registry.closed_by_code[4001] == 1)
        assert len(node.node.registry.get("U1")) == 1
        await other.say("U1", "to the new one")
        assert (await newer.wait_for_many(1))[0]["content"] == "to the new one"
        await newer.say("U2", "and back")
        await other.wait_for_many(2)
        assert newer.closed is None


async def test_a_replaced_connection_can_send_no_more(start_node: StartNode) -> None:
    node = await start_node(limits={"multi_login": "replace"})
    async with node.login("U1") as older, node.login("U1") as newer:
        await older.wait_for_close()
        await newer.say("U2", "the only one")
        await newer.wait_for_many(1)
        assert [message["content"] for message in await node.history("U1", "U2")] == ["the only one"]
        assert older.messages == []


async def test_replacing_is_not_stopped_by_the_limit_of_connections_per_user(start_node: StartNode) -> None:
    node = await start_node(limits={"multi_login": "replace", "connections_per_user": 1})
    async with node.login("U1") as older, node.login("U1") as newer:
        await older.wait_for_close()
        await newer.ping()


async def test_replacing_is_not_stopped_by_a_full_node(start_node: StartNode) -> None:
    node = await start_node(limits={"multi_login": "replace", "connections": 1})
    async with node.login("U1") as older, node.login("U1") as newer:
        assert (await older.wait_for_close())[0] == 4001
        await newer.ping()
        assert (await node.refusal("U2")).status == 503


async def test_reject_keeps_the_older_login(start_node: StartNode) -> None:
    node = await start_node(limits={"multi_login": "reject"})
    async with node.login("U1") as older:
        refusal = await node.refusal("U1")
        assert (refusal.status, refusal.body["code"]) == (403, 1007)
        assert "logged in already (limits.multi_login = reject)" in refusal.body["msg"]
        await older.ping()


async def test_reject_lets_the_next_login_in_once_the_older_has_left(start_node: StartNode) -> None:
    node = await start_node(limits={"multi_login": "reject"})
    async with node.login("U1"):
        pass
    await eventually(lambda: not node.node.registry.get("U1"))
    async with node.login("U1") as next_one:
        await next_one.ping()


# --- while a login becomes known to other nodes --------------------------------------------------------


async def test_who_is_sent_away_while_it_becomes_known_is_forgotten_after_that(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[UserConn] = []
    is_told = asyncio.Event()

    async def enter(conn: UserConn) -> Sequence[str]:
        await is_told.wait()
        known.append(conn)
        return ()

    monkeypatch.setattr(node.node.directory, "enter", enter)
    monkeypatch.setattr(node.node.directory, "leave", lambda conn: conn in known and known.remove(conn))
    async with node.login("U1", ready=False) as peer:
        (conn,) = await eventually(lambda: node.node.registry.get("U1"))
        conn.close(CloseCode.KICKED, "kicked")
        is_told.set()
        assert await peer.wait_for_close() == (4002, "kicked")
    await eventually(lambda: not node.server.server_state.tasks)
    assert (known, conn.expiry, len(node.node.registry)) == ([], None, 0)


async def test_nothing_waits_any_more_for_a_login_that_other_nodes_have_no_room_for(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def enter(conn: UserConn) -> Sequence[str]:
        node.node.peers.notify_here("U1", b'{"type":"status"}')
        raise RateLimited("U1 has enough connections", retry_after=5)

    monkeypatch.setattr(node.node.directory, "enter", enter)
    async with node.login("U1", ready=False) as peer:
        assert (await peer.wait_for_close())[0] == 1001
    assert node.node.journal.traffic.queued == 0


# --- log out -------------------------------------------------------------------------------------------


async def test_logout_closes_all_of_the_users_connections_with_1000(node: RunningNode) -> None:
    async with node.login("U1") as phone, node.login("U1") as desk, node.login("U2") as other:
        answer = await node.request("POST", "/user/wsLogout", json={"owner_id": "U1"}, headers=bearer("U1"))
        assert answer.json() == {"code": 1000, "msg": "success", "data": None}
        for peer in (phone, desk):
            assert (await peer.wait_for_close())[0] == 1000
        await other.ping()
        assert len(node.node.registry) == 1


async def test_logout_without_a_connection_is_a_success(node: RunningNode) -> None:
    answer = await node.request("POST", "/user/wsLogout", json={"owner_id": "U1"}, headers=bearer("U1"))
    assert answer.json() == {"code": 1000, "msg": "success", "data": None}


async def test_nobody_logs_somebody_else_out(node: RunningNode) -> None:
    """KamaChat defect 19: there, owner_id was not checked."""
    async with node.login("U1") as peer:
        answer = await node.request("POST", "/user/wsLogout", json={"owner_id": "U1"}, headers=bearer("U2"))
        assert (answer.status_code, answer.json()["code"]) == (403, 1007)
        await peer.ping()


async def test_an_admin_may_log_others_out(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        headers = bearer("Uadmin", "admin")
        assert (await node.request("POST", "/user/wsLogout", json={"owner_id": "U1"}, headers=headers)).is_success
        assert (await peer.wait_for_close())[0] == 1000
