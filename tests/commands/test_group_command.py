"""`kama group`: an operator's way to groups, against a real node."""

from __future__ import annotations

import httpx2
import pytest
from command_line import Kama
from support import NodeProcess, bearer, token


def create(live: NodeProcess, group: str, owner: str, *members: str, name: str = "") -> None:
    body = {"group_id": group, "owner_id": owner, "members": list(members), "name": name}
    headers = bearer("Uadmin", "admin")
    httpx2.post(f"{live.url}/admin/groups", json=body, headers=headers, trust_env=False).raise_for_status()


def members(kama: Kama, group: str) -> list[str]:
    return [member["user_id"] for member in kama("group", "show", group, "--json").json["members"]]


def test_a_group_is_created_with_its_owner_and_members(kama: Kama, live: NodeProcess) -> None:
    done = kama("group", "create", "G1", "--owner", "U1", "--member", "U2", "--member", "U3", "--name", "Friends")
    assert (done.code, done.out, done.err) == (0, "", "created G1 with 3 members\n")
    shown = kama("group", "show", "G1", "--json").json
    assert (shown["owner_id"], shown["name"], shown["member_count"]) == ("U1", "Friends", 3)
    assert [member["user_id"] for member in shown["members"]] == ["U1", "U2", "U3"]


def test_a_group_of_one_is_told_in_the_singular(kama: Kama, live: NodeProcess) -> None:
    assert kama("group", "create", "Gone", "--owner", "U1").err == "created Gone with 1 member\n"


def test_create_as_json_gives_the_group(kama: Kama, live: NodeProcess) -> None:
    told = kama("group", "create", "Gjson", "--owner", "U1", "--json").json
    assert (told["group_id"], told["member_count"]) == ("Gjson", 1)


def test_a_second_group_of_that_name_is_refused(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gtwice", "U1")
    done = kama("group", "create", "Gtwice", "--owner", "U1")
    assert (done.code, done.out) == (1, "") and done.err.startswith("kama: error: ") and "Gtwice" in done.err


def test_members_are_added_and_removed(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gchange", "U1")
    assert kama("group", "add", "Gchange", "U2", "U3").err == "added U2, U3\nGchange has 3 members\n"
    assert kama("group", "remove", "Gchange", "U2").err == "removed U2\nGchange has 2 members\n"
    assert members(kama, "Gchange") == ["U1", "U3"]


def test_adding_a_member_again_changes_nothing_and_says_so(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gagain", "U1", "U2")
    done = kama("group", "add", "Gagain", "U2")
    assert (done.code, done.err) == (0, "nothing changed\nGagain has 2 members\n")


def test_changes_as_json_tell_who_came_and_went(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gwho", "U1")
    assert kama("group", "add", "Gwho", "U2", "--json").json == {"added": ["U2"], "removed": [], "member_count": 2}
    assert kama("group", "remove", "Gwho", "U2", "--json").json == {"added": [], "removed": ["U2"], "member_count": 1}


def test_a_dissolved_group_is_gone(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gend", "U1")
    assert kama("group", "dissolve", "Gend").err == "dissolved Gend\n"
    done = kama("group", "show", "Gend")
    assert (done.code, done.out) == (1, "") and "there is no group Gend" in done.err


def test_dissolve_as_json_says_that_it_is_done(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gendj", "U1")
    assert kama("group", "dissolve", "Gendj", "--json").json == {"group_id": "Gendj", "dissolved": True}


def test_ls_lists_the_groups_in_columns(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gls1", "U1", name="One")
    create(live, "Gls2", "U1", "U2", name="Two")
    lines = [line.split() for line in kama("group", "ls").out.splitlines()]
    assert lines[0] == ["GROUP", "MEMBERS", "OWNER", "NAME"]
    assert ["Gls1", "1", "U1", "One"] in lines and ["Gls2", "2", "U1", "Two"] in lines


def test_ls_as_json_is_one_object_a_line(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gline", "U1")
    listed = kama("group", "ls", "--json").json_lines
    assert "Gline" in [group["group_id"] for group in listed]
    assert all("members" not in group and group["member_count"] >= 1 for group in listed)


def test_show_lists_members_with_their_role(kama: Kama, live: NodeProcess) -> None:
    create(live, "Gshow", "U1", "U2")
    lines = [line.split()[:2] for line in kama("group", "show", "Gshow").out.splitlines()]
    assert lines == [["MEMBER", "ROLE"], ["U1", "owner"], ["U2", "member"]]


def test_a_name_of_escape_sequences_and_wide_characters_only_prints_and_lines_up(kama: Kama, live: NodeProcess) -> None:
    name = "\x1b[2J\u202e世界[red]"
    create(live, "Gevil", "U1", name=name)
    row = next(line for line in kama("group", "ls").out.splitlines() if line.startswith("Gevil "))
    assert row.split()[-1] == "␛[2J\ufffd世界[red]"
    shown = kama("group", "show", "Gevil", "--json")
    assert "\x1b" not in shown.out and "\u202e" not in shown.out and shown.json["name"] == name


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x", "--owner", "U1"),
        ("create", "G1", "--owner", "x"),
        ("create", "G1"),
        ("create", "G1", "--owner", "U1", "--member", "x"),
        ("add", "G1"),
        ("add", "G1", "x"),
        ("remove", "x", "U1"),
        ("dissolve", "G/../x"),
        ("show",),
    ],
)
def test_what_is_no_id_is_a_usage_error(kama: Kama, arguments: tuple[str, ...]) -> None:
    done = kama("group", *arguments)
    assert (done.code, done.out) == (2, "") and done.err.startswith("kama: error: ")


def test_a_token_of_a_user_may_not_change_groups(
    kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAMA_TOKEN", token("U1"))
    done = kama("group", "create", "Guser", "--owner", "U1", "--json")
    assert (done.code, done.out, done.error["code"]) == (4, "", "auth")


def test_a_token_of_a_viewer_may_look(kama: Kama, live: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    create(live, "Gview", "U1")
    monkeypatch.setenv("KAMA_TOKEN", token("U1", "viewer"))
    assert kama("group", "show", "Gview").code == 0
    assert kama("group", "dissolve", "Gview").code == 4


def test_without_a_node_every_command_says_that_it_cannot_connect(
    kama: Kama, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAMA_SERVER", "http://127.0.0.1:1")
    for arguments in (
        ("ls",),
        ("show", "G1"),
        ("add", "G1", "U1"),
        ("dissolve", "G1"),
        ("create", "G1", "--owner", "U1"),
    ):
        done = kama("group", *arguments)
        assert (done.code, done.out) == (3, "")
        assert done.err == (
            "kama: error: no kama node answers at http://127.0.0.1:1: Connection refused\nhint: start one: kama serve\n"
        )
