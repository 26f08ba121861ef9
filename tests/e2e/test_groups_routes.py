"""The routes of operators: groups, kick, drain. What a change means to who is connected right now."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from support import Frame, RunningNode, bearer, eventually

from kama.server.auth import Role


async def _admin(
    node: RunningNode, method: str, path: str, body: Any = None, role: Role = "admin"
) -> tuple[int, int, Any]:
    """The status, the envelope's code, and its data."""
    answer = await node.request(method, f"/admin{path}", json=body, headers=bearer("Uadmin", role))
    envelope = answer.json()
    assert set(envelope) == {"code", "msg", "data"}
    return answer.status_code, envelope["code"], envelope["data"]


async def _change(node: RunningNode, **body: list[str]) -> Any:
    status, code, data = await _admin(node, "POST", "/groups/G1/members", body)
    assert (status, code) == (200, 1000)
    return data


# --- groups --------------------------------------------------------------------------------------------


async def test_a_group_is_made_and_shown(node: RunningNode) -> None:
    body = {"group_id": "G1", "owner_id": "U1", "members": ["U3", "U2", "U2"], "name": "Für alle"}
    status, code, made = await _admin(node, "POST", "/groups", body)
    assert (status, code) == (200, 1000)
    assert (made["group_id"], made["name"], made["owner_id"], made["member_count"]) == ("G1", "Für alle", "U1", 3)
    roles = [(member["user_id"], member["role"]) for member in made["members"]]
    assert roles == [("U1", "owner"), ("U2", "member"), ("U3", "member")]
    assert abs(made["created_ms"] - time.time() * 1000) < 10_000
    assert await _admin(node, "GET", "/groups/G1") == (200, 1000, made)


async def test_groups_are_listed_in_pages(node: RunningNode) -> None:
    for number in range(5):
        await node.create_group(f"G{number}", "U1", "U2")
    listed: list[Frame] = []
    after: str | None = ""
    while after is not None:
        _, _, page = await _admin(node, "GET", f"/groups?limit=2&after={after}")
        listed += page["groups"]
        after = page["next"]
    assert [group["group_id"] for group in listed] == ["G0", "G1", "G2", "G3", "G4"]
    assert set(listed[0]) == {"group_id", "name", "owner_id", "created_ms", "member_count"}
    assert listed[0]["member_count"] == 2


async def test_a_page_of_groups_begins_after_text_that_a_database_holds(node: RunningNode) -> None:
    assert await _admin(node, "GET", "/groups?after=G1%00") == (400, 1001, None)


async def test_a_change_answers_who_really_came_and_went(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2")
    data = await _change(node, add=["U2", "U3"], remove=["U9"])
    assert data == {"added": ["U3"], "removed": [], "member_count": 3}
    assert await _change(node, remove=["U2"]) == {"added": [], "removed": ["U2"], "member_count": 2}


async def test_an_added_member_gets_the_next_message_and_not_the_older_ones(node: RunningNode) -> None:
    await node.create_group("G1", "U1")
    async with node.login("U1") as owner, node.login("U2") as added:
        await owner.say("G1", "before")
        await owner.wait_for_many(1)
        await _change(node, add=["U2"])
        await owner.say("G1", "after")
        assert [(message["content"], message["seq"]) for message in await added.wait_for_many(1)] == [("after", 2)]
        await added.say("G1", "and it may speak")
        await added.wait_for_many(2)
        await owner.wait_for_many(3)
        await node.noted("U2", "G1", 3)
    async with node.login("U2") as again:
        assert again.messages == []


async def test_a_member_added_while_away_catches_up_from_then_on(node: RunningNode) -> None:
    await node.create_group("G1", "U1")
    async with node.login("U1") as owner:
        await owner.say("G1", "before")
        await owner.wait_for_many(1)
        await _change(node, add=["U2"])
        await owner.say("G1", "after")
        await owner.wait_for_many(2)
    async with node.login("U2") as added:
        assert [message["content"] for message in added.messages] == ["after"]


async def test_a_removed_member_gets_nothing_more_and_may_not_speak(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2")
    async with node.login("U1") as owner, node.login("U2") as removed:
        await owner.say("G1", "before")
        await removed.wait_for_many(1)
        await _change(node, remove=["U2"])
        await owner.say("G1", "after")
        await owner.say("U2", "marker")
        assert [message["content"] for message in await removed.wait_for_many(2)] == ["before", "marker"]
        await node.noted("U2", "U1_U2", 1)
        error = await removed.error_to({"type": 0, "send_id": "U2", "receive_id": "G1", "content": "still here"})
        assert (error["code"], error["field"]) == (1007, "receive_id")
        history = await node.request("GET", "/message/getGroupMessageList?groupId=G1", headers=bearer("U2"))
        assert history.status_code == 403
    async with node.login("U2") as again:
        assert again.messages == []


async def test_a_dissolved_group_is_gone_for_everybody(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2")
    async with node.login("U1") as owner, node.login("U2"):
        await owner.say("G1", "before")
        await owner.wait_for_many(1)
        assert await _admin(node, "DELETE", "/groups/G1") == (200, 1000, None)
        error = await owner.error_to({"type": 0, "send_id": "U1", "receive_id": "G1", "content": "anybody?"})
        assert (error["code"], error["field"]) == (1003, "receive_id")
        history = await node.request("GET", "/message/getGroupMessageList?groupId=G1", headers=bearer("U1"))
        assert (history.status_code, history.json()["code"]) == (404, 1003)
        assert (await _admin(node, "GET", "/groups/G1"))[:2] == (404, 1003)
        assert (await _admin(node, "GET", "/groups"))[2] == {"groups": [], "next": None}
        assert (await _admin(node, "POST", "/groups/G1/members", {"add": ["U3"]}))[:2] == (404, 1003)
        assert (await _admin(node, "DELETE", "/groups/G1"))[:2] == (404, 1003)
        assert (await _admin(node, "POST", "/groups", {"group_id": "G1", "owner_id": "U3"}))[:2] == (400, 1001)


async def test_a_group_of_a_thousand_with_a_few_online(node: RunningNode) -> None:
    members = [f"U{number}" for number in range(1, 1000)]
    await node.create_group("G1", "U0", *members)
    async with node.login("U0") as sender, node.login("U1") as one, node.login("U500") as two:
        for number in range(20):
            await sender.say("G1", str(number), client_msg_id=f"m{number}")
        for peer in (sender, one, two):
            messages = await peer.wait_for_many(20)
            assert [message["content"] for message in messages] == [str(number) for number in range(20)]
        assert node.node.delivery.offered == 60
    async with node.login("U999") as late:
        assert len(late.messages) == 20
    _, _, shown = await _admin(node, "GET", "/groups/G1")
    assert (shown["member_count"], len(shown["members"])) == (1000, 1000)


# --- kick and drain ------------------------------------------------------------------------------------


async def test_a_kicked_user_leaves_with_4002_and_the_reason(node: RunningNode) -> None:
    async with node.login("U1") as phone, node.login("U1") as desk, node.login("U2") as other:
        body = {"user_id": "U1", "reason": "be nice"}
        assert await _admin(node, "POST", "/kick", body) == (200, 1000, {"closed": 2})
        for peer in (phone, desk):
            assert await peer.wait_for_close() == (4002, "be nice")
        await other.ping()


async def test_one_connection_can_be_kicked_alone(node: RunningNode) -> None:
    async with node.login("U1", device="phone") as phone, node.login("U1", device="desk") as desk:
        (chosen,) = [conn for conn in node.node.registry.get("U1") if conn.device == "phone"]
        body = {"user_id": "U1", "connection_id": chosen.id}
        assert await _admin(node, "POST", "/kick", body) == (200, 1000, {"closed": 1})
        assert await phone.wait_for_close() == (4002, "kicked")
        await desk.ping()


async def test_kicking_who_is_not_there_closes_nothing(node: RunningNode) -> None:
    async with node.login("U1") as peer:
        assert (await _admin(node, "POST", "/kick", {"user_id": "U2"}))[2] == {"closed": 0}
        assert (await _admin(node, "POST", "/kick", {"user_id": "U1", "connection_id": "none"}))[2] == {"closed": 0}
        await peer.ping()


async def test_a_long_reason_of_many_bytes_still_closes(node: RunningNode) -> None:
    """A close frame holds 123 bytes; 100 characters may be more (RFC 6455, section 5.5)."""
    async with node.login("U1") as peer:
        assert (await _admin(node, "POST", "/kick", {"user_id": "U1", "reason": 100 * "字"}))[0] == 200
        code, reason = await peer.wait_for_close()
        assert code == 4002 and reason.startswith("字字字")


async def test_a_drain_sends_everybody_off_with_a_time_to_come_back(node: RunningNode) -> None:
    async with node.login("U1") as one, node.login("U2") as two:
        await one.say("U2", "the last one", client_msg_id="m1")
        await one.wait_for(lambda frame: frame["type"] == "ack")
        assert await _admin(node, "POST", "/drain") == (200, 1000, None)
        for peer in (one, two):
            code, reason = await peer.wait_for_close()
            assert code == 1001
            assert 100 <= json.loads(reason)["retry_after_ms"] <= 3000
        assert [message["content"] for message in two.messages] == ["the last one"]
    await eventually(lambda: node.node.draining)


async def test_every_action_is_logged_with_who_did_it(node: RunningNode, capsys: pytest.CaptureFixture[str]) -> None:
    await node.create_group("G1", "U1")
    await _change(node, add=["U2"])
    await _admin(node, "POST", "/kick", {"user_id": "U1", "reason": "be nice"})
    await _admin(node, "DELETE", "/groups/G1")
    printed = capsys.readouterr().out
    for event in ("group created", "group changed", "kicked", "group dissolved"):
        (line,) = [line for line in printed.splitlines() if event in line]
        assert "actor=Uadmin" in line
    assert "reason='be nice'" in printed and "target=U1" in printed


# --- who may, and with what ----------------------------------------------------------------------------

LOOK = [("GET", "/groups"), ("GET", "/groups/G1")]
ACT: list[tuple[str, str, Any]] = [
    ("POST", "/groups", {"group_id": "G2", "owner_id": "U1"}),
    ("POST", "/groups/G1/members", {"add": ["U9"]}),
    ("DELETE", "/groups/G1", None),
    ("POST", "/kick", {"user_id": "U1"}),
    ("POST", "/drain", None),
]


async def test_a_user_may_neither_look_nor_act(node: RunningNode) -> None:
    """KamaChat defect 23: there, every user was let in."""
    await node.create_group("G1", "U1")
    async with node.login("U1") as peer:
        for method, path, body in [*((method, path, None) for method, path in LOOK), *ACT]:
            assert await _admin(node, method, path, body, "user") == (403, 1007, None)
        await peer.ping()
    assert await node.node.groups.member_ids("G1") == frozenset({"U1"})


async def test_a_viewer_may_look_and_not_act(node: RunningNode) -> None:
    await node.create_group("G1", "U1")
    async with node.login("U1") as peer:
        for method, path in LOOK:
            assert (await _admin(node, method, path, None, "viewer"))[:2] == (200, 1000)
        for method, path, body in ACT:
            assert await _admin(node, method, path, body, "viewer") == (403, 1007, None)
        await peer.ping()
    assert await node.node.groups.member_ids("G1") == frozenset({"U1"})


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/groups", {}, "group_id"),
        ("/groups", {"group_id": "U1", "owner_id": "U1"}, "group_id"),
        ("/groups", {"group_id": "G1", "owner_id": "G1"}, "owner_id"),
        ("/groups", {"group_id": "G1", "owner_id": "U1", "members": "U2"}, "members"),
        ("/groups", {"group_id": "G1", "owner_id": "U1", "members": ["U2", "x"]}, "members"),
        ("/groups", {"group_id": "G1", "owner_id": "U1", "name": 51 * "x"}, "name"),
        ("/groups", {"group_id": "G1", "owner_id": "U1", "name": "a\0b"}, "name"),
        ("/groups", {"group_id": "G1", "owner_id": "U1", "colour": "red"}, "colour"),
        ("/groups", [], None),
        ("/groups/G1/members", {"add": [1]}, "add"),
        ("/groups/G1/members", {"added": ["U2"]}, "added"),
        ("/groups/G1/members", {"add": ["U2"], "remove": ["U2"]}, None),
        ("/groups/G1/members", {"remove": ["U1"]}, None),
        ("/groups/x/members", {"add": ["U2"]}, "group_id"),
        ("/kick", {}, "user_id"),
        ("/kick", {"user_id": "G1"}, "user_id"),
        ("/kick", {"user_id": "U1", "reason": 101 * "x"}, "reason"),
    ],
)
async def test_a_bad_body_is_refused_with_what_is_wrong(
    node: RunningNode, path: str, body: Any, field: str | None
) -> None:
    if path != "/groups":
        await node.create_group("G1", "U1")
    answer = await node.request("POST", f"/admin{path}", json=body, headers=bearer("Uadmin", "admin"))
    assert (answer.status_code, answer.json()["code"]) == (400, 1001)
    assert "expected " in answer.json()["msg"]
