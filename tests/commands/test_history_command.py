"""`kama history` and `kama kick`, against a real node."""

from __future__ import annotations

import anyio.to_thread
import httpx2
import pytest
from command_line import Kama
from rich.cells import cell_len
from support import NodeProcess, Peer, bearer, text_message, token

from kama.errors import CloseCode


def post(live: NodeProcess, sender: str, receiver: str, content: str, **more: object) -> None:
    message = text_message(sender, receiver, content, **more)
    httpx2.post(f"{live.url}/message/send", json=message, headers=bearer(sender), trust_env=False).raise_for_status()


def test_a_conversation_is_shown_oldest_first_whoever_is_named_first(kama: Kama, live: NodeProcess) -> None:
    post(live, "Ua", "Ub", "one")
    post(live, "Ub", "Ua", "two")
    for users in (("Ua", "Ub"), ("Ub", "Ua")):
        rows = [line.split() for line in kama("history", *users).out.splitlines()]
        assert [(row[0], row[3], row[4], row[5]) for row in rows] == [
            ("1", "Ua", "unsent", "one"),
            ("2", "Ub", "unsent", "two"),
        ]


def test_json_is_one_message_a_line_as_the_node_has_it(kama: Kama, live: NodeProcess) -> None:
    post(live, "Uc", "Ud", "one")
    post(live, "Uc", "Ud", "two\nlines")
    messages = kama("history", "Uc", "Ud", "--json").json_lines
    assert [(message["seq"], message["content"]) for message in messages] == [(1, "one"), (2, "two\nlines")]


def test_pages_are_cut_as_asked(kama: Kama, live: NodeProcess) -> None:
    for number in range(1, 6):
        post(live, "Ue", "Uf", str(number))

    def seqs(*options: str) -> list[int]:
        return [message["seq"] for message in kama("history", "Ue", "Uf", "--json", *options).json_lines]

    assert seqs("-n", "2") == [4, 5]
    assert seqs("--limit", "2", "--before-seq", "4") == [2, 3]
    assert seqs("--after-seq", "3") == [4, 5]


def test_an_empty_conversation_prints_nothing(kama: Kama, live: NodeProcess) -> None:
    for more in ((), ("--json",)):
        done = kama("history", "Unobody", "Unothing", *more)
        assert (done.code, done.out, done.err) == (0, "", "")


def test_the_history_of_a_group_is_shown(kama: Kama, live: NodeProcess) -> None:
    assert kama("group", "create", "Ghist", "--owner", "Ug").code == 0
    post(live, "Ug", "Ghist", "to all")
    assert "to all" in kama("history", "--group", "Ghist").out
    assert kama("history", "-g", "Ghist", "--json").json["content"] == "to all"


def test_a_group_that_there_is_not_is_an_error(kama: Kama, live: NodeProcess) -> None:
    done = kama("history", "--group", "Gnone", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.error == {"code": "failed", "message": "there is no group Gnone", "hint": None}


def test_contents_with_escape_sequences_only_print_and_stay_on_their_line(kama: Kama, live: NodeProcess) -> None:
    post(live, "Uh", "Ui", "\x1b]0;owned\x07\x9b2J\u202egnp.exe\nUi  forged")
    done = kama("history", "Uh", "Ui")
    assert done.out.count("\n") == 1
    assert done.out.endswith("␛]0;owned␇\ufffd2J\ufffdgnp.exe␊Ui  forged\n")
    as_json = kama("history", "Uh", "Ui", "--json")
    assert not {"\x1b", "\x9b", "\u202e"} & set(as_json.out)
    assert as_json.json["content"] == "\x1b]0;owned\x07\x9b2J\u202egnp.exe\nUi  forged"


def test_markup_is_text(kama: Kama, live: NodeProcess) -> None:
    post(live, "Uj", "Uk", "[bold red]x[/] :smile: \\[y]")
    assert kama("history", "Uj", "Uk").out.endswith("[bold red]x[/] :smile: \\[y]\n")


def test_columns_line_up_whatever_is_written(kama: Kama, live: NodeProcess) -> None:
    for number, content in enumerate(["世界", "a", "👩‍👩‍👧"] * 4):
        sender, receiver = ("Ul", "Um-a-long-name") if number % 2 else ("Um-a-long-name", "Ul")
        post(live, sender, receiver, content)
    lines = kama("history", "Ul", "Um-a-long-name").out.splitlines()
    assert len(lines) == 12
    assert len({cell_len(line[: line.index("unsent")]) for line in lines}) == 1


def test_files_are_shown_by_their_name_or_else_their_address(kama: Kama, live: NodeProcess) -> None:
    post(live, "Un", "Uo", "", type=2, url="http://f/a.png", file_name="a.png", file_size="1KB", file_type="png")
    post(live, "Un", "Uo", "", type=1, url="http://f/voice.ogg")
    first, second = kama("history", "Un", "Uo").out.splitlines()
    assert first.endswith("[file] a.png") and second.endswith("[voice] http://f/voice.ogg")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("U1",),
        ("U1", "U2", "--group", "G1"),
        ("U1", "--group", "G1"),
        ("U1", "x"),
        ("--group", "U1"),
        ("U1", "U2", "-n", "0"),
        ("U1", "U2", "-n", "201"),
        ("U1", "U2", "--before-seq", "-1"),
        ("U1", "U2", "U3"),
    ],
)
def test_what_names_no_conversation_is_a_usage_error(kama: Kama, arguments: tuple[str, ...]) -> None:
    done = kama("history", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("kama: error: ") and done.err.endswith("hint: kama history --help\n")


def test_a_given_token_is_used_and_not_one_of_ones_own(
    kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAMA_TOKEN", token("Up"))
    assert kama("history", "Up", "Uq").code == 0
    done = kama("history", "Ur", "Us")
    assert (done.code, done.err) == (4, "kama: error: Up is neither Ur nor Us\n")


# --- kick ----------------------------------------------------------------------------------------------


async def test_a_kicked_user_is_sent_off_with_the_reason(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "Ukick") as peer:
        done = await anyio.to_thread.run_sync(lambda: kama("kick", "Ukick", "--reason", "spam"))
        assert (done.code, done.out, done.err) == (0, "", "closed 1 connection of Ukick\n")
        assert await peer.wait_for_close() == (CloseCode.KICKED, "spam")


async def test_kick_as_json_counts_the_connections(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "Ukick2", device="a"), Peer(live.url, "Ukick2", device="b"):
        done = await anyio.to_thread.run_sync(lambda: kama("kick", "Ukick2", "--json"))
    assert done.json == {"closed": 2}


async def test_a_connection_that_is_not_named_stays(kama: Kama, live: NodeProcess) -> None:
    async with Peer(live.url, "Ukick3") as peer:
        done = await anyio.to_thread.run_sync(lambda: kama("kick", "Ukick3", "--connection", "another"))
        assert done.err == "closed 0 connections of Ukick3\n"
        await peer.send({"type": "ping"})
        await peer.wait_for(lambda frame: frame.get("type") == "pong")


def test_to_kick_who_is_not_there_is_no_failure(kama: Kama, live: NodeProcess) -> None:
    done = kama("kick", "Uaway")
    assert (done.code, done.err) == (0, "closed 0 connections of Uaway\n")


def test_to_kick_what_is_no_user_is_a_usage_error(kama: Kama) -> None:
    assert kama("kick", "G1").code == 2
