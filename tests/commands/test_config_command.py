"""`kama config`: what is in force and why, a first file, and no secret on any of its lines."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from command_line import Kama

from kama.config import environment_name
from kama.settings import setting_fields, to_toml

ALL = {item.setting for item in setting_fields()}


def test_show_prints_every_setting_with_its_source(kama: Kama, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("kama.toml").write_text("[limits]\nburst = 7")
    monkeypatch.setenv("KAMA_SERVER__PORT", "9000")
    done = kama("config", "show")
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines()[1:]}
    assert done.code == 0 and rows.keys() == ALL
    assert rows["limits.burst"] == ["7", "kama.toml"]
    assert rows["server.port"] == ["9000", "KAMA_SERVER__PORT"]
    assert rows["server.host"] == ["127.0.0.1", "default"]


def test_show_as_json_has_value_and_source_of_every_setting(kama: Kama) -> None:
    told = kama("config", "show", "--json").json
    assert told.keys() == ALL
    assert told["server.port"] == {"value": 8000, "source": "default"}


@pytest.mark.parametrize(
    "arguments", [("show",), ("show", "--json"), ("check",), ("path",), ("path", "--json"), ("env",)]
)
def test_no_secret_and_no_password_is_printed(
    kama: Kama, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("KAMA_AUTH__SECRET", "hunter2" * 5)
    monkeypatch.setenv("KAMA_REDIS__URL", "redis://:hunter2@cache:6379")
    monkeypatch.setenv("KAMA_STORE__URL", "postgresql+asyncpg://u:hun/hunter2@h/d?password=hunter2")
    monkeypatch.setenv("KAMA_TOKEN", "hunter2")
    done = kama("config", *arguments)
    assert done.code == 0
    assert "hunter2" not in done.out + done.err


def test_check_of_nothing_is_ok_and_says_that_there_is_no_secret_yet(kama: Kama) -> None:
    done = kama("config", "check")
    assert (done.code, done.out) == (0, "settings ok (file: none; secret: none yet: kama serve makes one)\n")


def test_check_as_json_says_what_it_read(kama: Kama, secret: str, tmp_path: Path) -> None:
    Path("kama.toml").write_text("")
    told = kama("config", "check", "--json", "--data-dir", str(tmp_path / "d")).json
    assert told == {"ok": True, "file": "kama.toml", "data_dir": str(tmp_path / "d"), "secret": "usable"}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KAMA_AUTH__SECRET", "short", "auth.secret (KAMA_AUTH__SECRET): expected a secret of at least 32 bytes"),
        ("KAMA_AUTH__SECRET", "", "auth.secret (KAMA_AUTH__SECRET): expected a secret of at least 32 bytes"),
        ("KAMA_SERVER__PORT", "x", "server.port (KAMA_SERVER__PORT): expected a valid integer, got 'x'"),
        ("KAMA_SERVER__PRT", "1", "there is no setting for the environment variable KAMA_SERVER__PRT"),
        ("KAMA_CONFIG", "/no/such", "expected KAMA_CONFIG to name a settings file, got nothing at /no/such"),
    ],
)
def test_check_of_something_wrong_is_a_usage_error_that_says_what(
    kama: Kama, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    done = kama("config", "check")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"kama: error: {told}") and "\nhint: " in done.err


def test_check_finds_a_secret_that_others_can_read(kama: Kama, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s" * 40)
    (tmp_path / "secret").chmod(0o644)
    done = kama("config", "check", "--data-dir", str(tmp_path))
    assert done.code == 2 and f"hint: chmod 600 {tmp_path}/secret" in done.err


def test_init_writes_the_sample_for_its_owner_alone(kama: Kama) -> None:
    done = kama("config", "init")
    assert (done.code, done.out, done.err) == (0, "", "wrote kama.toml\n")
    assert Path("kama.toml").read_text() == to_toml()
    assert stat.S_IMODE(Path("kama.toml").stat().st_mode) == 0o600


def test_what_init_wrote_can_be_read(kama: Kama) -> None:
    kama("config", "init")
    assert kama("config", "check").code == 0


def test_init_overwrites_only_when_it_is_forced_to(kama: Kama) -> None:
    Path("my file.toml").write_text("mine")
    done = kama("config", "init", "my file.toml")
    assert done.code == 2 and "hint: kama config init --force 'my file.toml'" in done.err
    assert Path("my file.toml").read_text() == "mine"
    assert kama("config", "init", "--force", "my file.toml").code == 0
    assert Path("my file.toml").read_text() == to_toml()


def test_init_into_no_folder_is_told(kama: Kama) -> None:
    done = kama("config", "init", "no/such/kama.toml")
    assert (done.code, done.err) == (2, "kama: error: cannot write no/such/kama.toml: No such file or directory\n")


def test_path_says_where_everything_is(kama: Kama, tmp_path: Path) -> None:
    Path("kama.toml").write_text("")
    assert kama("config", "path", "--json", "--data-dir", "d").json == {
        "file": str(tmp_path / "kama.toml"),
        "data_dir": str(tmp_path / "d"),
        "secret": str(tmp_path / "d" / "secret"),
        "store": f"sqlite+aiosqlite:///{tmp_path}/d/kama.db",
    }


def test_path_in_columns_marks_what_there_is_not(kama: Kama, secret: str) -> None:
    lines = kama("config", "path").out.splitlines()
    assert [line.split()[0] for line in lines] == ["file", "data_dir", "secret", "store"]
    assert lines[0].split() == ["file", "-"] and lines[2].split() == ["secret", "-"]


def test_env_lists_every_variable_and_which_are_set(kama: Kama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_LIMITS__BURST", "7")
    told = kama("config", "env", "--json").json
    plain = {"KAMA_CONFIG", "KAMA_DATA_DIR", "KAMA_SERVER", "KAMA_TOKEN"}
    assert told.keys() == plain | set(map(environment_name, ALL))
    assert [name for name, about in told.items() if about["set"]] == ["KAMA_LIMITS__BURST"]
    assert all(about["description"] for about in told.values())


def test_env_in_columns_lists_the_same_names(kama: Kama) -> None:
    names = [line.split()[0] for line in kama("config", "env").out.splitlines()]
    assert names == list(kama("config", "env", "--json").json)


def test_a_name_with_an_escape_sequence_only_prints(kama: Kama) -> None:
    name = "evil\x1b[2J\u202e.toml"
    Path(name).write_text("[server]\nport = 1")
    for arguments in (("show",), ("check",), ("path",), ("show", "--json"), ("check", "--json")):
        done = kama("config", *arguments, "--config", name)
        assert done.code == 0 and "\x1b" not in done.out and "\u202e" not in done.out
    assert kama("config", "check", "--json", "--config", name).json["file"] == name
