"""The three ways to hand over a token, its life on an open connection, and where it must never turn up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from support import NodeProcess, Peer, RunningNode, StartNode, bearer, eventually, text_message, token

from kama.server.auth import Role


def _auth(user_id: str, role: Role = "user", ttl: float = 300) -> dict[str, Any]:
    return {"type": "auth", "token": token(user_id, role, ttl)}


async def test_a_token_in_the_header_is_taken(node: RunningNode) -> None:
    async with node.login("U1", headers=bearer("U1")) as peer:
        assert peer.socket.subprotocol is None
        assert peer.frames[0]["type"] == "system"


# --- subprotocols --------------------------------------------------------------------------------------


async def test_a_token_among_the_subprotocols_is_taken_and_answered_with_bearer_alone(node: RunningNode) -> None:
    """KamaChat defect 26: a browser cannot set the header."""
    secret = token("U1")
    async with node.login("U1", headers={}, subprotocols=["bearer", secret]) as peer:
        answer = peer.socket.response
        assert answer is not None
        assert answer.headers["Sec-WebSocket-Protocol"] == peer.socket.subprotocol == "bearer"
        assert secret not in str(answer.headers)


async def test_a_bad_token_among_the_subprotocols_is_refused_before_there_is_a_websocket(node: RunningNode) -> None:
    refusal = await node.refusal("U1", headers={}, subprotocols=["bearer", "nonsense"])
    assert (refusal.status, refusal.body["code"]) == (401, 1006)


async def test_a_subprotocol_token_of_another_user_is_refused(node: RunningNode) -> None:
    refusal = await node.refusal("U1", headers={}, subprotocols=["bearer", token("U2")])
    assert (refusal.status, refusal.body["code"]) == (403, 1007)


@pytest.mark.parametrize("more", [[], ["a", "b"]])
async def test_bearer_wants_exactly_one_token(node: RunningNode, more: list[str]) -> None:
    refusal = await node.refusal("U1", headers={}, subprotocols=["bearer", *more])
    assert (refusal.status, refusal.body["code"]) == (401, 1006)
    assert "subprotocols" in refusal.body["msg"]


async def test_the_header_goes_before_the_subprotocols(node: RunningNode) -> None:
    refusal = await node.refusal("U1", headers=bearer("U2"), subprotocols=["bearer", token("U1")])
    assert refusal.status == 403


# --- the first frame -----------------------------------------------------------------------------------


async def test_a_token_in_the_first_frame_is_taken(node: RunningNode) -> None:
    async with node.login("U1", ready=False, headers={}) as peer:
        await peer.send(_auth("U1"))
        await peer.wait_for(lambda frame: frame.get("event") == "caught_up")
        assert peer.frames[0]["event"] == "welcome"


async def test_what_follows_the_first_frame_at_once_is_not_lost(node: RunningNode) -> None:
    async with node.login("U1", ready=False, headers={}) as peer:
        await peer.send(_auth("U1"))
        await peer.say("U2", "right behind it")
        assert (await peer.wait_for_many(1))[0]["content"] == "right behind it"


async def test_before_its_token_a_connection_gets_nothing(node: RunningNode) -> None:
    async with node.login("U1", ready=False, headers={}) as waiting, node.login("U2") as other:
        await eventually(lambda: node.node.registry.pending)
        await other.say("U1", "before")
        await other.wait_for_many(1)
        assert waiting.frames == []
        await waiting.send(_auth("U1"))
        assert (await waiting.wait_for_many(1))[0]["content"] == "before"


async def _refused_first_frame(node: RunningNode, frame: Any) -> dict[str, Any]:
    """The error frame; the connection must close with 4003."""
    async with node.login("U1", ready=False, headers={}) as peer:
        await peer.send(frame)
        code, reason = await peer.wait_for_close()
    assert code == 4003 and reason
    (error,) = peer.frames
    assert error["type"] == "error"
    return error


async def test_a_token_that_comes_too_late_closes_with_4003(start_node: StartNode) -> None:
    node = await start_node(auth={"auth_timeout": 0.2})
    async with node.login("U1", ready=False, headers={}) as peer:
        code, _ = await peer.wait_for_close()
    assert code == 4003
    (error,) = peer.frames
    assert (error["type"], error["code"]) == ("error", 1006)
    assert "within 0.2 s, got nothing" in error["message"]


async def test_another_first_frame_closes_with_4003_and_is_not_stored(node: RunningNode) -> None:
    error = await _refused_first_frame(node, text_message("U1", "U2"))
    assert error["code"] == 1006 and "as the first frame, got another" in error["message"]
    assert await node.history("U1", "U2") == []


async def test_a_first_frame_that_cannot_be_read_closes_with_4003(node: RunningNode) -> None:
    assert (await _refused_first_frame(node, "nonsense"))["code"] == 1001


async def test_a_first_frame_whose_refusal_is_long_in_bytes_closes_with_4003(node: RunningNode) -> None:
    assert (await _refused_first_frame(node, {"type": 24 * "字"}))["code"] == 1001


async def test_an_expired_token_in_the_first_frame_closes_with_4003(node: RunningNode) -> None:
    expired = token("U1", ttl=1)
    ends = time.time() + 1
    await eventually(lambda: time.time() > ends)
    error = await _refused_first_frame(node, {"type": "auth", "token": expired})
    assert (error["code"], error["message"]) == (1006, "the token has expired")


async def test_somebody_elses_token_in_the_first_frame_closes_with_4003(node: RunningNode) -> None:
    assert (await _refused_first_frame(node, _auth("U2")))["code"] == 1007


async def test_who_leaves_before_its_token_leaves_no_trace(node: RunningNode) -> None:
    async with node.login("U1", ready=False, headers={}):
        await eventually(lambda: node.node.registry.pending)
    await eventually(lambda: not node.node.registry.pending)
    assert len(node.node.registry) == 0


# --- never in the URL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["token", "access_token", "authorization"])
async def test_a_token_in_the_url_is_not_taken(start_node: StartNode, name: str) -> None:
    node = await start_node(auth={"auth_timeout": 0.2})
    async with node.login("U1", ready=False, headers={}, **{name: token("U1")}) as peer:
        assert (await peer.wait_for_close())[0] == 4003
    assert [frame["code"] for frame in peer.frames] == [1006]


async def test_a_token_in_the_url_of_a_request_is_not_taken(node: RunningNode) -> None:
    query = {"userOneId": "U1", "userTwoId": "U2", "token": token("U1")}
    answer = await node.request("GET", "/message/getMessageList", params=query)
    assert (answer.status_code, answer.json()["code"]) == (401, 1006)


# --- its life on a connection --------------------------------------------------------------------------


async def test_the_end_of_a_token_is_announced_and_then_closes_with_4005(node: RunningNode) -> None:
    async with node.login("U1", headers={"Authorization": f"Bearer {token('U1', ttl=2)}"}) as peer:
        expiring = await peer.wait_for(lambda frame: frame.get("type") == "expiring")
        assert expiring == {"type": "expiring", "in": expiring["in"]}
        assert expiring["in"] in (0, 1)
        assert peer.closed is None
        assert await peer.wait_for_close() == (4005, "token expired")


async def test_a_newer_token_keeps_the_connection_past_the_end_of_the_old_one(node: RunningNode) -> None:
    async with node.login("U1", headers={"Authorization": f"Bearer {token('U1', ttl=2)}"}) as peer:
        old_end = node.node.registry.get("U1")[0].identity.expires_at
        await peer.send(_auth("U1"))
        await eventually(lambda: time.time() > old_end + 0.1)
        await peer.ping()
        assert peer.of_type("error") == []


async def test_a_newer_token_can_be_a_shorter_one(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        await peer.send(_auth("U1", ttl=1))
        assert (await peer.wait_for_close())[0] == 4005


@pytest.mark.parametrize(("user_id", "code"), [("U2", 1007), ("", 1006)])
async def test_a_bad_newer_token_is_refused_and_changes_nothing(node: RunningNode, user_id: str, code: int) -> None:
    async with node.login("U1") as peer:
        before = node.node.registry.get("U1")[0].identity
        error = await peer.error_to(_auth(user_id) if user_id else {"type": "auth", "token": "nonsense"})
        assert error["code"] == code
        assert node.node.registry.get("U1")[0].identity == before
        await peer.say("U2", "still me")
        await peer.wait_for_many(1)


async def test_a_newer_token_without_the_admin_role_takes_the_rights_back(node: RunningNode) -> None:
    async with node.login("U1", headers=bearer("U1", "admin")) as peer:
        await peer.send(text_message("U9", "U2", "on behalf of U9"))
        await eventually(lambda: node.node.chat.counters.stored == 1)
        await peer.send(_auth("U1"))
        assert (await peer.error_to(text_message("U9", "U2")))["code"] == 1007


# --- never in the log ----------------------------------------------------------------------------------


async def test_no_token_and_no_payload_reaches_the_log(tmp_path: Path) -> None:
    """KamaChat defect 25: there, payloads were logged in full."""
    handed = [token("U1") for _ in range(6)]
    header = {"Authorization": f"Bearer {handed[0]}"}
    with NodeProcess(tmp_path, KAMA_LOG__LEVEL="debug", KAMA_AUTH__AUTH_TIMEOUT="0.2") as process:
        async with Peer(process.url, "U1", headers=header) as peer:
            await peer.send({"type": "auth", "token": handed[1]})
            await peer.say("U2", "between the two of us")
            await peer.error_to(text_message("U9", "U2", "between the two of us"))
            await peer.error_to("between the two of us")
        async with Peer(process.url, "U1", headers={}, subprotocols=["bearer", handed[2]]) as peer:
            await peer.ping()
        async with Peer(process.url, "U1", headers={}, ready=False) as peer:
            await peer.send({"type": "auth", "token": handed[3]})
            await peer.wait_for(lambda frame: frame.get("event") == "caught_up")
        async with Peer(process.url, "U1", headers={}, ready=False, token=handed[4]) as peer:
            await peer.wait_for_close()
        async with Peer(process.url, "U1", headers={}, ready=False) as peer:
            await peer.send({"type": "auth", "token": handed[5][:-4] + "AAAA"})
            await peer.wait_for_close()
        await asyncio.to_thread(process.kill)
    log = process.log.read_text()
    assert log.count('"connected"') == 3
    for secret in handed:
        for part in secret.split(".")[1:]:
            assert part[:-4] not in log
    assert "between the two of us" not in log
