"""`GET /wss`: who is let in, and what the others are told before there is a WebSocket."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from support import SECRET, RunningNode, StartNode, bearer, token


def _claims(**changes: Any) -> dict[str, Any]:
    """What a KamaChat backend puts into an access token; a change to None leaves the claim out."""
    now = int(time.time())
    claims = {
        "user_id": "U1",
        "token_id": "a1b2",
        "sub": "access_token",
        "iss": "kama_chat",
        "iat": now,
        "exp": now + 60,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def _signed(secret: str | None = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(_claims(**changes), secret or "", algorithm=algorithm)


def _header(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


# --- tokens --------------------------------------------------------------------------------------------

BAD_TOKENS: dict[str, tuple[Callable[[], dict[str, str]], str]] = {
    "empty header": (lambda: {"Authorization": ""}, "expected the header Authorization: Bearer <token>"),
    "no token": (lambda: {"Authorization": "Bearer "}, "expected the header Authorization: Bearer <token>"),
    "not Bearer": (lambda: {"Authorization": f"Basic {token('U1')}"}, "got another kind"),
    "the token alone": (lambda: {"Authorization": token("U1")}, "got another kind"),
    "not a token": (lambda: _header("nonsense"), "expected a valid JSON Web Token"),
    "expired": (lambda: _header(_signed(exp=int(time.time()) - 1)), "the token has expired"),
    "wrong signature": (lambda: _header(_signed("another secret, long enough for HS256")), "signature does not match"),
    "wrong issuer": (lambda: _header(_signed(iss="somebody else")), "expected a token issued by kama_chat"),
    "wrong algorithm": (lambda: _header(_signed(algorithm="HS384")), "got another algorithm"),
    "no algorithm": (lambda: _header(_signed(None, "none")), "got another algorithm"),
    "refresh token": (lambda: _header(_signed(sub="refresh_token")), "expected an access token, got a refresh token"),
    "another sub": (lambda: _header(_signed(sub="U1")), "expected a token whose sub is access_token"),
    "no exp": (lambda: _header(_signed(exp=None)), "the claim exp"),
    "no iss": (lambda: _header(_signed(iss=None)), "the claim iss"),
    "no sub": (lambda: _header(_signed(sub=None)), "the claim sub"),
    "no user_id": (lambda: _header(_signed(user_id=None)), "the claim user_id"),
    "user_id of another kind": (lambda: _header(_signed(user_id="G1")), "whose user_id is U"),
    "unknown role": (lambda: _header(_signed(role="root")), "expected a role of user, viewer, admin"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_is_unauthorised_and_told_why(node: RunningNode, name: str) -> None:
    headers, why = BAD_TOKENS[name]
    refusal = await node.refusal("U1", headers=headers())
    assert (refusal.status, refusal.body["code"], refusal.body["data"]) == (401, 1006, None)
    assert why in refusal.body["msg"]
    assert refusal.headers["WWW-Authenticate"] == "Bearer"


async def test_a_refusal_does_not_repeat_the_token(node: RunningNode) -> None:
    bad = _signed("another secret, long enough for HS256")
    refusal = await node.refusal("U1", headers=_header(bad))
    assert bad not in str(refusal) and bad.rpartition(".")[2] not in str(refusal)


async def test_a_token_with_kamachats_claims_alone_is_accepted(node: RunningNode) -> None:
    assert set(_claims()) == {"user_id", "token_id", "exp", "iat", "iss", "sub"}
    async with node.login("U1", headers=_header(_signed())) as peer:
        assert peer.frames[0]["event"] == "welcome"


# --- client_id -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_id", ["", "1", "G1", "U", "u1", "U1 ", "U1/2", "Ü1", "U" + 20 * "1", "U1\n"])
async def test_a_malformed_client_id_is_a_bad_parameter(node: RunningNode, client_id: str) -> None:
    refusal = await node.refusal(client_id, headers=bearer("U1"))
    assert (refusal.status, refusal.body["code"]) == (400, 1001)
    assert "expected client_id=U" in refusal.body["msg"] and repr(client_id[:24]) in refusal.body["msg"]


async def test_a_missing_client_id_is_a_bad_parameter(node: RunningNode) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = {**upgrade, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", **bearer("U1")}
    answer = await node.request("GET", "/wss", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, 1001)
    assert answer.json() == {"code": 1001, "msg": "expected client_id=U…, got ''", "data": None}


async def test_a_device_of_any_length_is_not_taken(node: RunningNode) -> None:
    refusal = await node.refusal("U1", device=65 * "x")
    assert (refusal.status, refusal.body["code"]) == (400, 1001)
    assert "device" in refusal.body["msg"]


async def test_nobody_logs_in_as_somebody_else(node: RunningNode) -> None:
    """KamaChat defect 18: there, client_id was not tied to the token."""
    refusal = await node.refusal("U2", headers=bearer("U1"))
    assert (refusal.status, refusal.body["code"]) == (403, 1007)
    assert not node.node.registry.get("U2")


async def test_a_viewer_may_not_act_for_others(node: RunningNode) -> None:
    refusal = await node.refusal("U2", headers=bearer("U1", "viewer"))
    assert (refusal.status, refusal.body["code"]) == (403, 1007)


async def test_an_admin_may_log_in_for_others(node: RunningNode) -> None:
    async with node.login("U2", headers=bearer("Uadmin", "admin")) as acting, node.login("U1") as other:
        await other.say("U2", "for U2")
        assert (await acting.wait_for_many(1))[0]["content"] == "for U2"
        await acting.say("U1", "from U2")
        assert (await other.wait_for_many(2))[1]["send_id"] == "U2"


# --- where it comes from -------------------------------------------------------------------------------


async def test_a_foreign_page_is_kept_out(node: RunningNode) -> None:
    refusal = await node.refusal("U1", headers={**bearer("U1"), "Origin": "https://evil.example"})
    assert (refusal.status, refusal.body["code"]) == (403, 1007)
    assert "https://evil.example" in refusal.body["msg"]


@pytest.mark.parametrize("origin", ["null", "http://127.0.0.1.evil.example", "http://127.0.0.1:1", "http://[::1"])
async def test_an_origin_that_only_looks_like_the_nodes_own_is_kept_out(node: RunningNode, origin: str) -> None:
    assert (await node.refusal("U1", headers={**bearer("U1"), "Origin": origin})).status == 403


async def test_the_nodes_own_page_may_connect(node: RunningNode) -> None:
    async with node.login("U1", headers={**bearer("U1"), "Origin": node.url}) as peer:
        await peer.ping()


async def test_a_listed_page_may_connect(start_node: StartNode) -> None:
    node = await start_node(server={"allowed_origins": ["https://chat.example"]})
    async with node.login("U1", headers={**bearer("U1"), "Origin": "https://chat.example"}) as peer:
        await peer.ping()
    assert (await node.refusal("U1", headers={**bearer("U1"), "Origin": "http://chat.example"})).status == 403


# --- other places --------------------------------------------------------------------------------------


async def test_a_draining_node_takes_no_new_connections(node: RunningNode) -> None:
    await node.node.drain()
    refusal = await node.refusal("U1")
    assert (refusal.status, refusal.body["code"]) == (503, 1005)
    assert refusal.headers["Retry-After"] == "1"


async def test_a_plain_request_is_told_to_upgrade(node: RunningNode) -> None:
    answer = await node.request("GET", "/wss", params={"client_id": "U1"}, headers=bearer("U1"))
    assert (answer.status_code, answer.json()["code"]) == (426, 1001)
    assert answer.headers["Upgrade"] == "websocket"


async def test_an_upgrade_elsewhere_is_not_found(node: RunningNode) -> None:
    node.url += "/elsewhere"
    refusal = await node.refusal("U1")
    assert (refusal.status, refusal.body["code"]) == (404, 1008)
    assert "/elsewhere/wss" in refusal.body["msg"]
