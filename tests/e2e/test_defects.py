"""KamaChat's known defects by number: where each is proven not to be here, or why it cannot be.

Those without a better place are tested at the end of this file.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from pathlib import Path

import pytest
from redis.asyncio import Redis
from support import Frame, Peer, RunningNode, bearer, eventually, make_settings, new_id, running_node

TESTS = Path(__file__).parent.parent

PROVEN: dict[int, list[str]] = {
    2: ["e2e/test_slow_client.py::test_a_frozen_client_among_two_hundred_delays_nobody_and_loses_nothing"],
    3: [
        "e2e/test_frames_raw.py::test_a_connection_cut_in_the_middle_of_a_frame_is_undone",
        "e2e/test_slow_client.py::test_a_frozen_client_among_two_hundred_delays_nobody_and_loses_nothing",
    ],
    4: [
        "e2e/test_login_limits.py::test_by_default_every_login_stays",
        "e2e/test_login_limits.py::test_the_end_of_one_connection_leaves_the_users_others",
        "e2e/test_login_limits.py::test_a_replaced_connections_cleanup_does_not_remove_the_new_one",
    ],
    5: ["e2e/test_defects.py::test_logout_amid_messages_ends_that_connection_and_nothing_else"],
    6: ["e2e/test_frames.py::test_a_bad_frame_is_answered_with_what_is_wrong_and_ends_nothing"],
    7: ["e2e/test_defects.py::test_whatever_is_written_to_one_socket_at_once_arrives_frame_by_frame"],
    8: [
        "e2e/test_receipts.py::test_the_senders_own_echo_makes_nothing_sent",
        "e2e/test_call_signals.py::test_any_other_signal_passes_through_and_is_not_stored",
        "server/store/test_store_progress.py::test_the_time_of_sending_is_kept",
    ],
    9: ["e2e/test_health.py::test_while_the_store_fails_nothing_is_acked_or_delivered_and_then_everything_is"],
    11: [
        "e2e/test_retries.py::test_a_retry_gets_the_same_ack_and_nobody_gets_it_twice",
        "e2e/test_retries.py::test_a_thousand_retries_over_several_connections_are_one_row_and_one_delivery",
    ],
    12: [
        "e2e/test_receipts.py::test_an_ack_comes_once_the_message_is_stored",
        "e2e/test_conversation.py::test_a_message_waits_for_a_user_that_has_never_been_here",
        "e2e/test_health.py::test_while_the_store_fails_a_full_queue_refuses_with_1005",
    ],
    13: ["e2e/test_conversation.py::test_a_message_to_oneself_comes_once"],
    17: [
        "e2e/test_shutdown.py::test_a_signal_stores_delivers_and_says_goodbye",
        "e2e/test_defects.py::test_the_end_of_a_node_leaves_the_keys_in_redis_alone",
    ],
    18: ["e2e/test_login.py::test_nobody_logs_in_as_somebody_else"],
    19: ["e2e/test_login_limits.py::test_nobody_logs_somebody_else_out"],
    20: ["e2e/test_frames.py::test_nobody_writes_in_another_users_name"],
    21: [
        "e2e/test_history_routes.py::test_nobody_else_may_read_a_pair",
        "e2e/test_history_routes.py::test_members_may_read_a_group_and_others_may_not",
    ],
    22: ["e2e/test_frames.py::test_who_is_not_in_a_group_cannot_write_to_it"],
    23: [
        "e2e/test_groups_routes.py::test_a_user_may_neither_look_nor_act",
        "e2e/test_routes.py::test_a_route_is_closed_without_a_good_token",
    ],
    24: [
        "test_credentials.py::test_a_made_secret_is_long_and_its_owners_alone",
        "test_config.py::test_a_file_that_is_no_toml_is_told_by_its_name",
        "server/test_auth.py::test_a_secret_must_be_as_long_as_its_algorithm_requires",
    ],
    25: [
        "e2e/test_frames_raw.py::test_who_sends_nothing_and_answers_no_ping_leaves_with_4010",
        "e2e/test_frames_raw.py::test_a_larger_frame_closes_with_1009",
        "e2e/test_frames.py::test_who_sends_too_fast_is_told_when_the_next_one_may_come",
        "e2e/test_login_limits.py::test_a_full_node_is_busy",
        "e2e/test_login.py::test_a_foreign_page_is_kept_out",
        "e2e/test_login_tokens.py::test_no_token_and_no_payload_reaches_the_log",
    ],
    26: ["e2e/test_login_tokens.py::test_a_token_among_the_subprotocols_is_taken_and_answered_with_bearer_alone"],
    27: ["server/test_cache_redis.py::test_a_change_costs_the_same_however_long_the_conversation"],
    28: ["e2e/test_history_routes.py::test_who_polls_never_sees_an_older_state_and_never_misses_what_was_acked"],
    29: ["e2e/test_history_routes.py::test_history_is_the_same_whichever_user_is_named_first"],
    30: ["e2e/test_history_routes.py::test_history_shows_what_was_pushed"],
    31: ["e2e/test_history_routes.py::test_history_is_limited_to_the_newest_50_oldest_first"],
    32: ["e2e/test_defects.py::test_many_messages_share_a_transaction"],
}

ELSEWHERE: dict[int, str] = {
    1: "several nodes exist in kafka mode only",
    10: "acks and offsets exist in kafka mode only",
    14: "a Kafka producer that waits for its batch exists in kafka mode only",
    15: "a Kafka reader exists in kafka mode only",
    16: "a list of Kafka servers exists in kafka mode only",
}


def test_every_defect_has_its_place_and_every_named_test_exists() -> None:
    assert sorted([*PROVEN, *ELSEWHERE]) == list(range(1, 33))
    for number, names in PROVEN.items():
        for name in names:
            file, _, test = name.partition("::")
            assert re.search(rf"^(async )?def {test}\(", (TESTS / file).read_text(), re.M), f"defect {number}: {name}"


# --- those without a better place ----------------------------------------------------------------------


async def test_logout_amid_messages_ends_that_connection_and_nothing_else(
    node: RunningNode, caplog: pytest.LogCaptureFixture
) -> None:
    """KamaChat defect 5: there, a message on its way to who logs out ends the whole process."""
    said, got = 0, set[int]()
    is_over = asyncio.Event()
    async with node.login("U2") as sender:

        async def talk() -> None:
            nonlocal said
            while not is_over.is_set():
                said += 1
                await sender.say("U1", str(said))
                await sender.ping()

        async def come_and_go() -> None:
            for visit in itertools.count(1):
                async with node.login("U1") as peer:
                    body = {"owner_id": "U1"}
                    answer = await node.request("POST", "/user/wsLogout", json=body, headers=bearer("U1"))
                    assert answer.is_success
                    assert (await peer.wait_for_close())[0] == 1000
                    got.update(message["seq"] for message in peer.messages)
                if visit == 5:
                    is_over.set()
                if is_over.is_set() and len(got) == said:
                    return

        await asyncio.gather(talk(), come_and_go())
        assert got == set(range(1, said + 1))
        await sender.wait_for_many(said)
        await sender.ping()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_whatever_is_written_to_one_socket_at_once_arrives_frame_by_frame(node: RunningNode) -> None:
    """KamaChat defect 7: there, the welcome and the messages came from two writers, and collided."""
    async with (
        node.login("U2") as two,
        node.login("U3") as three,
        node.login("U4") as four,
        node.login("U1", ready=False) as receiver,
    ):

        async def talk(sender: Peer) -> None:
            for number in range(60):
                await sender.say("U1", 500 * str(number % 10), client_msg_id=f"m{number}")

        async def ask() -> None:
            for _ in range(60):
                await receiver.send({"type": "ping"})
                await receiver.send("nonsense")

        await asyncio.gather(*map(talk, (two, three, four)), ask())
        messages = await receiver.wait_for_many(180)
        await receiver.wait_for_many(60, lambda frame: frame["type"] == "pong")
        await receiver.wait_for_many(60, lambda frame: frame["type"] == "error")
        assert receiver.frames[0]["event"] == "welcome"
        for user in ("U2", "U3", "U4"):
            seqs = [message["seq"] for message in messages if message["send_id"] == user]
            assert seqs == list(range(1, 61))


@pytest.mark.redis
async def test_the_end_of_a_node_leaves_the_keys_in_redis_alone(tmp_path: Path, redis_url: str) -> None:
    """KamaChat defect 17: an ancestor of it deleted all keys on its way out."""
    one, two = sorted(f"U{new_id()[:12]}" for _ in range(2))
    async with Redis.from_url(redis_url) as redis:
        await redis.set(f"somebody_elses_{one}", "x", ex=60)
        async with running_node(make_settings(tmp_path, redis={"url": redis_url})) as node:
            async with node.login(one) as peer:
                await peer.say(two)
                await peer.wait_for_many(1)
            await node.history(one, two)
            await eventually(lambda: not node.node.cache.depth)
        assert await redis.exists(f"message_list_{one}_{two}", f"somebody_elses_{one}") == 2


async def test_many_messages_share_a_transaction(node: RunningNode) -> None:
    """KamaChat defect 32: there, each message had a transaction of its own, and one more for each receiver."""
    async with node.login("U1") as one, node.login("U2") as two, node.login("U3") as three:

        async def talk(sender: Peer, receive_id: str) -> None:
            for number in range(200):
                await sender.say(receive_id, str(number))

        await asyncio.gather(talk(one, "U2"), talk(two, "U3"), talk(three, "U1"))
        received: list[list[Frame]] = [await peer.wait_for_many(400, seconds=30) for peer in (one, two, three)]
    assert {len(messages) for messages in received} == {400}
    counters = node.node.chat.counters
    assert counters.stored == 600
    assert counters.batches < 300
