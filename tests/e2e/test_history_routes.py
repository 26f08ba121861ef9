"""getMessageList and getGroupMessageList: who may read, which part, and never an older state than before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from support import Frame, RunningNode, StartNode, bearer, eventually, new_id

PAIR, GROUP = "/message/getMessageList", "/message/getGroupMessageList"
U1_U2 = {"userOneId": "U1", "userTwoId": "U2"}
G1 = {"groupId": "G1"}


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def cached_node(request: pytest.FixtureRequest, start_node: StartNode) -> RunningNode:
    """A node with each kind of cache. Redis is everybody's: take new users."""
    if request.param == "redis":
        return await start_node(redis={"url": request.getfixturevalue("redis_url")})
    return await start_node()


async def _get(node: RunningNode, path: str, query: dict[str, Any], headers: dict[str, str]) -> tuple[int, Frame]:
    answer = await node.request("GET", path, params=query, headers=headers)
    return answer.status_code, answer.json()


async def _post_many(node: RunningNode, count: int, receive_id: str = "U2") -> None:
    async with node.login("U1") as sender:
        for number in range(1, count + 1):
            await sender.say(receive_id, str(number))
        await sender.wait_for_many(count)


def _contents(messages: Sequence[Frame]) -> list[int]:
    return [int(message["content"]) for message in messages]


def new_user() -> str:
    return f"U{new_id()[:12]}"


# --- who may read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "query"), [(PAIR, U1_U2), (GROUP, G1)])
async def test_history_needs_a_token(node: RunningNode, path: str, query: dict[str, Any]) -> None:
    status, body = await _get(node, path, query, {})
    assert (status, body["code"], body["data"]) == (401, 1006, None)


async def test_both_of_a_pair_may_read_it(node: RunningNode) -> None:
    await _post_many(node, 1)
    for user in ("U1", "U2"):
        status, body = await _get(node, PAIR, U1_U2, bearer(user))
        assert (status, body["code"], len(body["data"])) == (200, 1000, 1)


async def test_nobody_else_may_read_a_pair(node: RunningNode) -> None:
    """KamaChat defect 21: there, anybody could read any conversation."""
    await _post_many(node, 1)
    for headers in (bearer("U3"), bearer("U3", "viewer")):
        status, body = await _get(node, PAIR, U1_U2, headers)
        assert (status, body["code"], body["data"]) == (403, 1007, None)


async def test_an_admin_may_read_any_pair(node: RunningNode) -> None:
    await _post_many(node, 1)
    assert len((await _get(node, PAIR, U1_U2, bearer("Uadmin", "admin")))[1]["data"]) == 1


async def test_members_may_read_a_group_and_others_may_not(node: RunningNode) -> None:
    await node.create_group("G1", "U1", "U2")
    await _post_many(node, 1, "G1")
    assert len((await _get(node, GROUP, G1, bearer("U2")))[1]["data"]) == 1
    status, body = await _get(node, GROUP, G1, bearer("U3"))
    assert (status, body["code"], body["data"]) == (403, 1007, None)


@pytest.mark.parametrize("role", ["user", "admin"])
async def test_a_group_that_does_not_exist_is_said_so(node: RunningNode, role: Any) -> None:
    status, body = await _get(node, GROUP, {"groupId": "Gnone"}, bearer("U1", role))
    assert (status, body) == (404, {"code": 1003, "msg": "there is no group Gnone", "data": None})


# --- which part ----------------------------------------------------------------------------------------


async def test_a_conversation_that_never_was_is_an_empty_list(node: RunningNode) -> None:
    assert await _get(node, PAIR, U1_U2, bearer("U1")) == (200, {"code": 1000, "msg": "success", "data": []})
    await node.create_group("G1", "U1")
    assert (await _get(node, GROUP, G1, bearer("U1")))[1]["data"] == []


async def test_history_is_the_same_whichever_user_is_named_first(cached_node: RunningNode) -> None:
    """KamaChat defect 29: there, half of the pairs were cached under a key that nobody read."""
    one, two = new_user(), new_user()
    async with cached_node.login(one) as first, cached_node.login(two) as second:
        for number in range(4):
            await first.say(two, f"{number}")
            await second.say(one, f"{number}")
            await first.wait_for_many(2 * number + 2)
            histories = [await cached_node.history(one, two), await cached_node.history(two, one)]
            for history in histories:
                assert [message["seq"] for message in history] == list(range(1, 2 * number + 3))


async def test_history_is_limited_to_the_newest_50_oldest_first(node: RunningNode) -> None:
    """KamaChat defect 31: there, history came whole or not at all."""
    await _post_many(node, 60)
    assert _contents(await node.history("U1", "U2")) == list(range(11, 61))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"limit": "5"}, range(26, 31)),
        ({"limit": "200"}, range(1, 31)),
        ({"limit": "5", "before_seq": "11"}, range(6, 11)),
        ({"limit": "5", "before_seq": "3"}, range(1, 3)),
        ({"before_seq": "1"}, range(0)),
        ({"before_seq": "0"}, range(0)),
        ({"limit": "5", "after_seq": "10"}, range(11, 16)),
        ({"limit": "5", "after_seq": "28"}, range(29, 31)),
        ({"limit": "5", "after_seq": "0"}, range(1, 6)),
        ({"after_seq": "30"}, range(0)),
        ({"after_seq": str(2**63 - 1)}, range(0)),
        ({"limit": "3", "after_seq": "10", "before_seq": "20"}, range(11, 14)),
        ({"after_seq": "10", "before_seq": "13"}, range(11, 13)),
    ],
)
@pytest.mark.parametrize("kept", [10, 200])
async def test_a_part_of_the_history(
    start_node: StartNode, kept: int, query: dict[str, str], expected: Sequence[int]
) -> None:
    """From the cache and, where it keeps less than asked for, from the store."""
    node = await start_node(cache={"max_messages": kept})
    await _post_many(node, 30)
    for _ in range(2):
        assert _contents(await node.history("U1", "U2", **query)) == list(expected)


@pytest.mark.parametrize("name", ["limit", "before_seq", "after_seq"])
@pytest.mark.parametrize("value", ["", "-1", "x", "1.5", "1e3", "٣", "+1", 19 * "9", 30 * "9", "0x10", " 1"])
async def test_a_bad_number_is_named(node: RunningNode, name: str, value: str) -> None:
    for path, query in ((PAIR, U1_U2), (GROUP, G1)):
        if path == GROUP:
            await node.create_group("G1", "U1")
        status, body = await _get(node, path, {**query, name: value}, bearer("U1"))
        assert (status, body["code"], body["data"]) == (400, 1001, None)
        assert f"expected {name} to be a whole number" in body["msg"] and value[:24] in body["msg"]


@pytest.mark.parametrize("value", ["0", "201"])
async def test_a_limit_is_from_1_to_200(node: RunningNode, value: str) -> None:
    status, body = await _get(node, PAIR, {**U1_U2, "limit": value}, bearer("U1"))
    assert (status, body["code"]) == (400, 1001)
    assert "from 1 to 200" in body["msg"]


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        (PAIR, {}, "userOneId"),
        (PAIR, {"userOneId": "U1"}, "userTwoId"),
        (PAIR, {"userOneId": "U1", "userTwoId": "G1"}, "userTwoId"),
        (PAIR, {"userOneId": "U 1", "userTwoId": "U2"}, "userOneId"),
        (GROUP, {}, "groupId"),
        (GROUP, {"groupId": "U1"}, "groupId"),
    ],
)
async def test_a_bad_id_is_named(node: RunningNode, path: str, query: dict[str, str], field: str) -> None:
    status, body = await _get(node, path, query, bearer("U1"))
    assert (status, body["code"]) == (400, 1001)
    assert f"expected {field}=" in body["msg"]


async def test_pairs_whose_ids_hold_underscores_do_not_mix(node: RunningNode) -> None:
    async with node.login("U1") as one, node.login("U1_U2") as two:
        await one.say("U2_U3", "of U1 and U2_U3")
        await two.say("U3", "of U1_U2 and U3")
        await one.wait_for_many(1)
        await two.wait_for_many(1)
        assert [message["content"] for message in await node.history("U1", "U2_U3")] == ["of U1 and U2_U3"]
        assert [message["content"] for message in await node.history("U1_U2", "U3")] == ["of U1_U2 and U3"]


# --- while it is written -------------------------------------------------------------------------------


async def test_history_shows_what_was_pushed(cached_node: RunningNode) -> None:
    """KamaChat defect 30: there, the cache had another send_avatar than the database."""
    one, two = new_user(), new_user()
    file = {"url": "http://files/a", "file_name": "a", "file_size": "1KB", "file_type": "text/plain"}
    who = {"send_name": "Ann", "send_avatar": "http://files/ann.png", "session_id": "S1", "client_msg_id": "m1"}
    async with cached_node.login(one) as sender, cached_node.login(two) as receiver:
        await cached_node.history(one, two)
        await sender.send({"type": 2, "send_id": one, "receive_id": two, **file, **who})
        (push,) = await receiver.wait_for_many(1)
        await sender.wait_for(lambda frame: frame["type"] == "status")
        for _ in range(3):
            assert await cached_node.history(one, two) == [{**push, "status": 1}]


async def test_who_polls_never_sees_an_older_state_and_never_misses_what_was_acked(cached_node: RunningNode) -> None:
    """KamaChat defect 28: there, racing workers lost entries of the cache, and a late fill brought old ones back."""
    one, two = new_user(), new_user()
    total, done, polls = 100, asyncio.Event(), [0, 0, 0]
    async with cached_node.login(one) as sender, cached_node.login(two) as receiver:

        async def write() -> None:
            for number in range(total):
                await sender.say(two, str(number), client_msg_id=f"m{number}")
                if number % 10 == 9:
                    newest = (await receiver.wait_for_many(number + 1))[-1]
                    await receiver.send({"type": "read", "uuid": newest["uuid"]})
                    await eventually(lambda number=number: min(polls) > number // 10)
            await sender.wait_for_many(total, lambda frame: frame["type"] == "ack", seconds=30)
            done.set()

        async def poll(which: int) -> None:
            seen: list[Frame] = []
            while not (done.is_set() and len(seen) == total):
                acked = len(sender.of_type("ack"))
                now = await cached_node.history(one, two, limit="200")
                assert len(now) >= max(acked, len(seen))
                assert _contents(now) == list(range(len(now)))
                for before, after in zip(seen, now, strict=False):
                    assert before["uuid"] == after["uuid"] and before["status"] <= after["status"]
                seen = now
                polls[which] += 1

        await asyncio.gather(write(), *(poll(which) for which in range(3)))


async def test_a_conversation_that_is_read_is_answered_by_the_cache(cached_node: RunningNode) -> None:
    one, two = new_user(), new_user()
    async with cached_node.login(one) as sender:
        for number in range(3):
            await sender.say(two, str(number))
            await sender.wait_for_many(number + 1)
            assert len(await cached_node.history(one, two)) == number + 1
            await eventually(lambda: not cached_node.node.cache.depth)
            hits = cached_node.node.cache.hits
            assert len(await cached_node.history(one, two)) == number + 1
            assert cached_node.node.cache.hits == hits + 1
