"""`kama send` against a real node: what it prints, what it waits for, and how it ends when that does not come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx2
import pytest
from command_line import Kama, Outcome
from support import KEEPER, NodeProcess, Peer, bearer, token
from websockets.asyncio.server import serve


async def beside(kama: Kama, *arguments: str, **more: Any) -> Outcome:
    """A command beside the event loop that keeps a receiver's connection alive."""
    return await anyio.to_thread.run_sync(lambda: kama(*arguments, **more))


def history(live: NodeProcess, one: str, two: str) -> list[dict[str, Any]]:
    path = f"{live.url}/message/getMessageList?userOneId={one}&userTwoId={two}&limit=200"
    answer = httpx2.get(path, headers=bearer(one), trust_env=False)
    messages: list[dict[str, Any]] = answer.json()["data"]
    return messages


# --- what it prints and posts --------------------------------------------------------------------------


def test_the_uuid_of_the_stored_message_is_all_that_is_printed(kama: Kama, live: NodeProcess) -> None:
    done = kama("send", "hello", "--from", "Ua1", "--to", "Ua2")
    (message,) = history(live, "Ua1", "Ua2")
    assert (done.code, done.out, done.err) == (0, f"{message['uuid']}\n", "")
    assert message["content"] == "hello"


def test_json_tells_uuid_conversation_seq_and_status(kama: Kama, live: NodeProcess) -> None:
    told = kama("send", "hello", "--from", "Ub1", "--to", "Ub2", "--json").json
    (message,) = history(live, "Ub1", "Ub2")
    assert (told["uuid"], told["client_msg_id"]) == (message["uuid"], message["client_msg_id"])
    assert (told["conversation"], told["status"]) == ("Ub1_Ub2", "accepted")


async def test_with_a_receiver_online_it_waits_until_the_message_is_sent(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "Uc2") as receiver:
        done = await beside(kama, "send", "hi", "--from", "Uc1", "--to", "Uc2", "--json", "--wait", "sent")
        message = (await receiver.wait_for_many(1))[0]
    assert done.code == 0
    assert (done.json["uuid"], done.json["seq"], done.json["status"]) == (message["uuid"], 1, "sent")


def test_without_a_receiver_it_is_stored_and_the_wait_ends_in_time(kama: Kama, live: NodeProcess) -> None:
    start = time.monotonic()
    done = kama("send", "hi", "--from", "Ud1", "--to", "Ud2", "--wait", "sent", "--timeout", "300ms", "--json")
    assert (done.code, done.out, done.error["code"]) == (5, "", "timeout")
    assert time.monotonic() - start < 5
    (message,) = history(live, "Ud1", "Ud2")
    assert message["uuid"] in done.error["message"] and "within 0.3 s" in done.error["message"]


def test_a_note_to_oneself_without_another_device_is_not_sent(kama: Kama, live: NodeProcess) -> None:
    done = kama("send", "note", "--from", "Ue1", "--to", "Ue1", "--wait", "sent", "--timeout", "300ms")
    assert done.code == 5 and "no receiver took it" in done.err
    assert history(live, "Ue1", "Ue1")[0]["content"] == "note"


async def test_a_note_to_oneself_reaches_another_device(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "Ue2", device="desk") as desk:
        done = await beside(kama, "send", "note", "--from", "Ue2", "--to", "Ue2", "--wait", "sent")
        await desk.wait_for_many(1)
    assert done.code == 0


async def test_a_message_to_a_group_reaches_its_members(kama: Kama, live: NodeProcess) -> None:
    assert (await beside(kama, "group", "create", "Gsend", "--owner", "Uf1", "--member", "Uf2")).code == 0
    async with Peer(live.url, "Uf2") as member:
        done = await beside(kama, "send", "to all", "--from", "Uf1", "--to", "Gsend", "--wait", "sent", "--json")
        message = (await member.wait_for_many(1))[0]
    assert (done.code, done.json["conversation"]) == (0, "Gsend")
    assert (message["content"], message["receive_id"]) == ("to all", "Gsend")


def test_a_group_that_one_is_no_member_of_refuses(kama: Kama, live: NodeProcess) -> None:
    assert kama("group", "create", "Gothers", "--owner", "Uf1").code == 0
    done = kama("send", "hi", "--from", "Ustranger", "--to", "Gothers", "--json")
    assert (done.code, done.out, done.error["code"]) == (4, "", "auth")


def test_stdin_is_the_content_without_its_last_line_end(kama: Kama, live: NodeProcess) -> None:
    assert kama("send", "-", "--from", "Ug1", "--to", "Ug2", stdin="two\nlines 世界\n").code == 0
    assert history(live, "Ug1", "Ug2")[0]["content"] == "two\nlines 世界"


def test_every_field_of_a_file_is_posted(kama: Kama, live: NodeProcess) -> None:
    fields = {"url": "http://f/a.png", "file_name": "a.png", "file_size": "10KB", "file_type": "image/png"}
    options = [part for name, value in fields.items() for part in (f"--{name.replace('_', '-')}", value)]
    done = kama("send", "--type", "file", "--from", "Uh1", "--to", "Uh2", "--session-id", "S1", *options)
    assert done.code == 0
    (message,) = history(live, "Uh1", "Uh2")
    assert {name: message[name] for name in fields} == fields
    assert (message["type"], message["session_id"]) == (2, "S1")


def test_a_voice_message_is_posted(kama: Kama, live: NodeProcess) -> None:
    assert kama("send", "--type", "voice", "--url", "http://f/v.ogg", "--from", "Uh3", "--to", "Uh4").code == 0
    assert history(live, "Uh3", "Uh4")[0]["type"] == 1


async def test_a_call_signal_reaches_the_receiver(kama: Kama, live: NodeProcess) -> None:
    signal = '{"messageId":"PROXY","type":"start_call"}'
    async with Peer(live.url, "Ui2") as receiver:
        done = await beside(kama, "send", "--type", "av", "--av-data", signal, "--from", "Ui1", "--to", "Ui2")
        message = (await receiver.wait_for_many(1))[0]
    assert done.code == 0
    assert (message["type"], message["av_data"]) == (3, signal)


def test_text_that_looks_like_an_option_is_text_behind_two_dashes(kama: Kama, live: NodeProcess) -> None:
    done = kama("send", "--from", "Uj1", "--to", "Uj2", "--", "--json")
    assert done.code == 0 and done.out.strip().isdigit()
    assert history(live, "Uj1", "Uj2")[0]["content"] == "--json"


def test_an_empty_text_is_a_text(kama: Kama, live: NodeProcess) -> None:
    done = kama("send", "", "--from", "Uj3", "--to", "Uj4")
    assert done.code == 0 and history(live, "Uj3", "Uj4")[0]["content"] == ""


# --- many ----------------------------------------------------------------------------------------------


def test_count_posts_as_many_messages_in_order(kama: Kama, live: NodeProcess) -> None:
    done = kama("send", "again", "--from", "Uk1", "--to", "Uk2", "--count", "5")
    assert done.out.split() == [message["uuid"] for message in history(live, "Uk1", "Uk2")]
    assert len(done.out.split()) == 5


def test_count_as_json_is_one_object_a_line(kama: Kama, live: NodeProcess) -> None:
    told = kama("send", "again", "--from", "Uk3", "--to", "Uk4", "-n", "3", "--json").json_lines
    assert len({one["uuid"] for one in told}) == 3


def test_rate_spreads_the_messages(kama: Kama, live: NodeProcess) -> None:
    start = time.monotonic()
    assert kama("send", "x", "--from", "Uk5", "--to", "Uk6", "-n", "4", "--rate", "20").code == 0
    assert time.monotonic() - start >= 3 / 20


def test_a_rate_limit_is_waited_for_and_no_message_is_lost(
    kama: Kama, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = {"KAMA_LIMITS__MESSAGES_PER_SECOND": "10", "KAMA_LIMITS__BURST": "2"}
    with NodeProcess(tmp_path / "limited", **limits) as limited:
        monkeypatch.setenv("KAMA_TOKEN", token("Ul1"))
        start = time.monotonic()
        done = kama("send", "x", "--from", "Ul1", "--to", "Ul2", "-n", "6", "-s", limited.url)
        assert done.code == 0 and done.err == ""
        assert time.monotonic() - start >= 0.3
        assert done.out.split() == [message["uuid"] for message in history(limited, "Ul1", "Ul2")]
        assert len(done.out.split()) == 6


# --- how it fails --------------------------------------------------------------------------------------

HI = ("send", "hi", "--from", "U1", "--to", "U2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "--from", "U1", "--to", "U2"),
        ("send", "hi", "--from", "x", "--to", "U2"),
        ("send", "hi", "--from", "G1", "--to", "U2"),
        ("send", "hi", "--from", "U1", "--to", "x"),
        ("send", "hi", "--from", "U1"),
        (*HI, "--type", "nonsense"),
        (*HI, "--type", "av"),
        (*HI, "--type", "av", "--av-data", "{}", "--wait", "sent"),
        (*HI, "--wait", "read"),
        (*HI, "--timeout", "soon"),
        (*HI, "--timeout", "0s"),
        (*HI, "--count", "0"),
        (*HI, "--rate", "0"),
        (*HI, "--rate", "nan"),
        (*HI, "--rate", "inf"),
        (*HI, "-s", "nonsense"),
        (*HI, "-s", "ftp://h"),
        (*HI, "--token-file", "/no/such"),
        (*HI, "extra"),
        ("send", "\udcff", "--from", "U1", "--to", "U2"),
    ],
)
def test_what_cannot_be_posted_is_a_usage_error(kama: Kama, secret: str, arguments: tuple[str, ...]) -> None:
    done = kama(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("kama: error: ") and done.err.count("\n") <= 2
    assert "Traceback" not in done.err and "Value error" not in done.err


def test_stdin_that_is_no_text_is_a_usage_error(kama: Kama, secret: str) -> None:
    done = kama("send", "-", "--from", "U1", "--to", "U2", stdin=b"\xff\xfe")
    assert done.code == 2 and "expected UTF-8 on stdin" in done.err


def test_what_the_node_refuses_is_told_with_the_name_of_the_field(kama: Kama, live: NodeProcess) -> None:
    done = kama(*HI, "--session-id", "x" * 21)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"kama: error: session_id: expected str of length <= 20, got '{'x' * 21}'\n"


def test_a_message_larger_than_a_frame_may_be_is_told_at_once(kama: Kama, live: NodeProcess) -> None:
    start = time.monotonic()
    done = kama("send", "-", "--from", "Um1", "--to", "Um2", stdin="x" * 100_000)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(
        "kama: error: expected a message of at most 65536 bytes (the node's limits.message_size)"
    )
    assert time.monotonic() - start < 4


def test_a_content_that_is_too_long_is_refused_by_the_node(kama: Kama, live: NodeProcess) -> None:
    done = kama("send", "-", "--from", "Um3", "--to", "Um4", stdin="x" * 60_000)
    assert (done.code, done.out) == (1, "") and "at most 50000 characters" in done.err


async def test_a_server_that_says_nothing_after_the_login_times_out(kama: Kama, secret: str) -> None:
    async with serve(lambda connection: connection.wait_closed(), "127.0.0.1", 0) as silent:
        port = next(iter(silent.sockets)).getsockname()[1]
        done = await beside(kama, *HI, "-s", f"http://127.0.0.1:{port}", "--timeout", "300ms")
    assert done.code == 5
    assert done.err == "kama: error: the node did not welcome the connection within 0.3 s\n"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_without_a_node_it_cannot_connect_even_where_there_is_no_secret_yet(kama: Kama, more: tuple[str, ...]) -> None:
    done = kama(*HI, "-s", "http://127.0.0.1:1", *more)
    assert (done.code, done.out) == (3, "")
    if more:
        message = "no kama node answers at http://127.0.0.1:1: Connection refused"
        assert done.error == {"code": "cannot_connect", "message": message, "hint": "start one: kama serve"}


def test_with_a_secret_and_without_a_node_it_cannot_connect(kama: Kama, secret: str) -> None:
    done = kama(*HI, "-s", "http://127.0.0.1:1")
    assert (done.code, done.out) == (3, "") and "hint: start one: kama serve" in done.err


def test_without_secret_and_token_a_node_wants_a_token(
    kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAMA_AUTH__SECRET")
    done = kama(*HI)
    assert done.code == 4
    assert "no token was given, and there is no secret" in done.err and "hint: give a token: --token-file" in done.err


@pytest.mark.parametrize("bad", ["nonsense", KEEPER.issue("U1", 60, now=0), token("U9")])
def test_a_token_that_is_not_good_is_refused_and_not_repeated(
    kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    monkeypatch.setenv("KAMA_TOKEN", bad)
    done = kama(*HI, "--json")
    assert (done.code, done.out, done.error["code"]) == (4, "", "auth")
    assert bad not in done.err


def test_another_secret_than_the_nodes_is_refused(
    kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAMA_AUTH__SECRET", "another secret, just as long as it has to be")
    done = kama(*HI)
    assert done.code == 4 and "signature does not match" in done.err


def test_a_token_can_come_from_a_file_or_stdin(
    kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KAMA_AUTH__SECRET")
    (tmp_path / "token").write_text(token("U1") + "\n")
    assert kama(*HI, "--token-file", str(tmp_path / "token")).code == 0
    assert kama(*HI, "-t", "-", stdin=token("U1") + "\n").code == 0
