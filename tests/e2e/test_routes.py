"""What all routes have in common: the guard, and the envelope around every answer, errors included."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.routing import Route
from support import SECRET, Frame, RunningNode, bearer, eventually, text_message, without_messages

from kama.server.app import routes

PUBLIC = {"/", "/wss", "/monitor/ws", "/health/live", "/health/ready", "/metrics"}
GUARDED = [
    (method, route.path.replace("{group_id}", "G1"))
    for route in routes()
    if isinstance(route, Route) and route.path not in PUBLIC
    for method in sorted((route.methods or set()) - {"HEAD"})
]
POSTS = [path for method, path in GUARDED if method == "POST" and path != "/admin/drain"]


def _is_envelope(answer: Any) -> bool:
    body = answer.json()
    return answer.headers["Content-Type"] == "application/json" and list(body) == ["code", "msg", "data"]


def test_the_list_of_guarded_routes_is_not_empty() -> None:
    assert len(GUARDED) >= 11
    assert ("POST", "/admin/groups/G1/members") in GUARDED


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("header", [None, "Bearer nonsense", "Basic abc"])
async def test_a_route_is_closed_without_a_good_token(
    node: RunningNode, method: str, path: str, header: str | None
) -> None:
    answer = await node.request(method, path, headers={"Authorization": header} if header else {})
    assert (answer.status_code, answer.json()["code"], answer.json()["data"]) == (401, 1006, None)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert _is_envelope(answer)
    assert not node.node.draining


async def test_a_refresh_token_opens_nothing(node: RunningNode) -> None:
    claims = {"user_id": "U1", "sub": "refresh_token", "iss": "kama_chat", "exp": 2**33}
    refresh = jwt.encode(claims, SECRET, algorithm="HS256")
    answer = await node.request("POST", "/user/wsLogout", headers={"Authorization": f"Bearer {refresh}"})
    assert (answer.status_code, answer.json()["msg"]) == (401, "expected an access token, got a refresh token")


# --- answers that are none of a handler ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nothing", "/message", "/admin", "/health", "/..%2f..%2fetc/passwd"])
async def test_what_is_not_there_is_not_found(node: RunningNode, path: str) -> None:
    answer = await node.request("GET", path, headers=bearer("U1"))
    assert (answer.status_code, answer.json()["code"]) == (404, 1008)
    assert _is_envelope(answer)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/message/send", "POST"),
        ("POST", "/message/getMessageList", "GET, HEAD"),
        ("GET", "/user/wsLogout", "POST"),
        ("DELETE", "/admin/kick", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which_is_right(node: RunningNode, method: str, path: str, allowed: str) -> None:
    answer = await node.request(method, path, headers=bearer("Uadmin", "admin"))
    assert (answer.status_code, answer.json()["code"]) == (405, 1001)
    assert sorted(answer.headers["Allow"].split(", ")) == allowed.split(", ")
    assert _is_envelope(answer)


async def test_a_plain_request_for_a_websocket_is_told_to_upgrade(node: RunningNode) -> None:
    answer = await node.request("GET", "/wss")
    assert (answer.status_code, answer.json()["code"], answer.headers["Upgrade"]) == (426, 1001, "websocket")
    assert _is_envelope(answer)


@pytest.mark.parametrize(("path", "limit"), [("/message/send", 65_536), ("/admin/groups", 1 << 20)])
async def test_a_body_that_is_too_large_is_refused(node: RunningNode, path: str, limit: int) -> None:
    headers = bearer("Uadmin", "admin")
    answer = await node.request("POST", path, content=limit * b" ", headers=headers)
    assert answer.status_code == 400
    answer = await node.request("POST", path, content=(limit + 1) * b" ", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, 1001)
    assert f"at most {limit} bytes" in answer.json()["msg"]
    assert _is_envelope(answer)


async def test_a_body_of_unknown_length_is_cut_off_at_the_limit(node: RunningNode) -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield 10_000 * b" "

    answer = await node.request("POST", "/message/send", content=endless(), headers=bearer("U1"))
    assert answer.status_code == 413


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut off": b'{"owner_id":',
    "not UTF-8": b'{"owner_id":"\xff","user_id":"\xff","group_id":"\xff","add":["\xff"],"type":"\xff"}',
    "an array": b"[]",
    "a number": b"7",
    "nested too deep": 20_000 * b"[",
    "a form": b"owner_id=U1&user_id=U1",
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_body_that_is_no_json_object_is_refused(node: RunningNode, path: str, name: str) -> None:
    answer = await node.request("POST", path, content=BAD_BODIES[name], headers=bearer("Uadmin", "admin"))
    assert (answer.status_code, answer.json()["code"]) == (400, 1001)
    assert "expected" in answer.json()["msg"]
    assert _is_envelope(answer)


async def test_keys_of_later_versions_are_ignored_at_logout(node: RunningNode) -> None:
    body = {"owner_id": "U1", "device": "phone"}
    assert (await node.request("POST", "/user/wsLogout", json=body, headers=bearer("U1"))).is_success


# --- our own faults ------------------------------------------------------------------------------------


async def test_a_fault_of_ours_is_in_the_log_and_not_in_the_answer(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_group_id: str) -> None:
        raise RuntimeError("what only the log may know")

    monkeypatch.setattr(node.node.groups, "get", broken)
    answer = await node.request("GET", "/admin/groups/G1", headers=bearer("Uadmin", "admin"))
    assert (answer.status_code, answer.json()["code"]) == (500, 1005)
    assert "RuntimeError" not in answer.text and "what only the log" not in answer.text
    assert _is_envelope(answer)
    assert "RuntimeError: what only the log may know" in caplog.text
    assert (await node.request("GET", "/admin/groups", headers=bearer("Uadmin", "admin"))).is_success


@pytest.mark.parametrize("path", ["/wss/", "/message/getMessageList/", "/health/live/"])
async def test_a_path_with_a_slash_too_many_is_not_found_and_not_redirected(node: RunningNode, path: str) -> None:
    answer = await node.request("GET", path, headers=bearer("U1"))
    assert (answer.status_code, answer.json()["code"]) == (404, 1008)


async def test_a_store_that_fails_is_1010_and_no_fault_of_ours(
    node: RunningNode, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    query = {"userOneId": "U1", "userTwoId": "U2"}
    async with node.login("U1") as peer:
        await peer.say("U2")
        await peer.wait_for_many(1)
        await eventually(lambda: not node.node.cache.depth)
        await node.noted("U1", "U1_U2", 1)
        async with without_messages(tmp_path):
            answer = await node.request("GET", "/message/getMessageList", params=query, headers=bearer("U1"))
            assert (answer.status_code, answer.json()["code"]) == (500, 1010)
            assert _is_envelope(answer) and "SELECT" not in answer.text
            error = await peer.error_to({"type": "read", "uuid": "1"})
            assert error["code"] == 1010 and "SELECT" not in error["message"]
        assert len(await node.history("U1", "U2")) == 1
        await peer.ping()
    assert "store failed while a request was handled" in capsys.readouterr().out
    assert "Traceback" not in caplog.text


async def test_a_store_that_cannot_be_reached_is_1010_and_no_fault_of_ours(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a refused connection raises, SQLAlchemy lets pass as it is."""
    nowhere = create_async_engine("postgresql+asyncpg://kama@127.0.0.1:1/kama")
    query = {"userOneId": "U1", "userTwoId": "U2"}
    async with node.login("U1") as peer:
        with monkeypatch.context() as patch:
            patch.setattr(node.node.database, "_reader", nowhere)
            answer = await node.request("GET", "/message/getMessageList", params=query, headers=bearer("U1"))
            assert (answer.status_code, answer.json()["code"]) == (500, 1010)
            assert (await peer.error_to({"type": "read", "uuid": "1"}))["code"] == 1010
        await peer.ping()
    assert "Traceback" not in caplog.text


# --- many at once --------------------------------------------------------------------------------------


async def test_a_draining_node_takes_no_posted_message(node: RunningNode) -> None:
    await node.node.drain()
    answer = await node.request("POST", "/message/send", json=text_message("U1", "U2"), headers=bearer("U1"))
    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (503, 1005, "1")


async def test_many_posts_at_once_are_all_stored_once_and_in_a_row(node: RunningNode) -> None:
    async def post(number: int) -> Frame:
        body = json.dumps(text_message("U1", "U2", str(number)))
        answer = await node.request("POST", "/message/send", content=body, headers=bearer("U1"))
        data: Frame = answer.json()["data"]
        return data

    answers = await asyncio.gather(*map(post, range(100)))
    assert sorted(answer["seq"] for answer in answers) == list(range(1, 101))
    assert len({answer["uuid"] for answer in answers}) == 100
