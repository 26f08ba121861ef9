"""Where settings come from, who wins, and how a wrong one is told."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kama.config import ensure_data_dir, environment_name, load_config, show_value
from kama.errors import ExitCode, SettingsError
from kama.settings import setting_fields
from kama.text import conceal

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A settings file with this content."""

    def make(content: str | bytes, name: str = "some.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def refused(**details: Any) -> SettingsError:
    with pytest.raises(SettingsError) as error:
        load_config(**{"environ": {}, **details})
    assert error.value.exit_code == ExitCode.USAGE
    return error.value


# --- who wins ------------------------------------------------------------------------------------------


def test_without_anything_every_setting_is_at_its_default() -> None:
    config = load_config(environ={})
    assert {config.source(item.setting) for item in setting_fields()} == {"default"}
    assert config.file is None


def test_a_file_wins_over_a_default(write: Write) -> None:
    file = write("[server]\nport = 9000")
    config = load_config(file=file, environ={})
    assert (config.value("server.port"), config.source("server.port")) == (9000, str(file))


def test_a_variable_wins_over_a_file(write: Write) -> None:
    file = write("[server]\nport = 9000")
    config = load_config(file=file, environ={"KAMA_SERVER__PORT": "9001"})
    assert (config.value("server.port"), config.source("server.port")) == (9001, "KAMA_SERVER__PORT")


def test_a_flag_wins_over_a_variable() -> None:
    config = load_config(flags={"server.port": (9002, "--port")}, environ={"KAMA_SERVER__PORT": "9001"})
    assert (config.value("server.port"), config.source("server.port")) == (9002, "--port")


def test_settings_of_one_section_come_from_several_places(write: Write) -> None:
    config = load_config(file=write('[limits]\nburst = 7\npublish_timeout = "1s"'), environ={"KAMA_LIMITS__BURST": "8"})
    assert (config.settings.limits.burst, config.settings.limits.publish_timeout) == (8, 1)


@pytest.mark.parametrize("setting", [item.setting for item in setting_fields()])
def test_every_setting_can_be_set_by_its_variable(setting: str) -> None:
    values = {"auth.secret": "s" * 40, "auth.algorithm": "HS512", "limits.multi_login": "reject", "node.id": "7"}
    values |= {"node.mode": "kafka", "store.durability": "disk", "log.level": "error", "log.format": "json"}
    values |= {"store.url": "postgresql+asyncpg://h/d", "redis.url": "redis://h", "server.host": "::1"}
    values |= {"server.allowed_origins": "https://a.example", "kafka.bootstrap_servers": "a:1,b:2"}
    values |= {"kafka.partitions": "3", "kafka.compression": "gzip", "kafka.security_protocol": "SSL"}
    values |= {"kafka.sasl_mechanism": "SCRAM-SHA-512", "server.websocket": "websockets"}
    config = load_config(environ={environment_name(setting): values.get(setting, "12")})
    assert config.source(setting) == environment_name(setting)
    assert config.value(setting) != load_config(environ={}).value(setting)


def test_the_file_in_the_current_folder_is_found(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("[server]\nport = 9000", "kama.toml")
    monkeypatch.chdir(tmp_path)
    assert load_config(environ={}).value("server.port") == 9000


def test_the_file_of_the_user_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "home" / "config" / "kama"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[server]\nport = 9000")
    monkeypatch.chdir(tmp_path)
    assert load_config(environ={}).value("server.port") == 9000


def test_a_named_file_wins_over_the_variable_and_that_over_the_current_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = write("[server]\nport = 1", "kama.toml"), write("[server]\nport = 2", "there.toml")
    monkeypatch.chdir(tmp_path)
    environ = {"KAMA_CONFIG": str(there)}
    assert load_config(environ=environ).value("server.port") == 2
    assert load_config(file=here, environ=environ).value("server.port") == 1


def test_the_data_folder_comes_from_the_flag_then_the_variable_then_the_home(tmp_path: Path) -> None:
    environ = {"KAMA_DATA_DIR": str(tmp_path / "variable")}
    assert load_config(data_dir=tmp_path / "flag", environ=environ).data_dir == tmp_path / "flag"
    assert load_config(environ=environ).data_dir == tmp_path / "variable"
    assert load_config(environ={}).data_dir == tmp_path / "home" / "data" / "kama"


def test_the_database_lies_in_the_data_folder_unless_a_setting_says_otherwise(tmp_path: Path) -> None:
    assert load_config(data_dir=tmp_path, environ={}).database_file == tmp_path / "kama.db"
    elsewhere = {"KAMA_STORE__URL": "sqlite+aiosqlite:////srv/chat.db?timeout=3"}
    assert load_config(environ=elsewhere).database_file == Path("/srv/chat.db")
    assert load_config(environ={"KAMA_STORE__URL": "postgresql+asyncpg://h/d"}).database_file is None


def test_variables_of_others_and_of_the_tests_are_none_of_ours() -> None:
    load_config(environ={"KAMAX": "1", "PATH": "", "KAMA_TEST_REDIS_URL": "redis://h", "KAMA_SERVICES_X": "1"})


def test_a_pipe_can_be_a_settings_file(tmp_path: Path) -> None:
    code = "from kama.config import load_config; from pathlib import Path; import sys;"
    code += "print(load_config(file=Path(sys.argv[1])).value('server.port'))"
    shell = f"""{sys.executable} -c "{code}" <(printf '[server]\\nport = 9000')"""
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout == "9000\n"


# --- how a wrong one is told ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[server]\nport = 99999", "server.port ({file}): expected less than or equal to 65535, got 99999"),
        ('[server]\nport = "x"', "server.port ({file}): expected a valid integer, got 'x'"),
        ("[server]\nport = true", "server.port ({file}): expected a number or text, got True"),
        ("[server]\nhost = 5", "server.host ({file}): expected a valid string, got 5"),
        ('[server]\nhost = ""', "server.host ({file}): expected at least 1 character, got ''"),
        ('[log]\nlevel = "loud"', "log.level ({file}): expected 'debug', 'info', 'warning' or 'error', got 'loud'"),
        (
            "[limits]\nmessages_per_second = nan",
            "limits.messages_per_second ({file}): expected a finite number, got nan",
        ),
        (
            '[kafka]\ntopic = "a b"',
            "kafka.topic ({file}): expected pattern '^[A-Za-z0-9._-]+$', got 'a b'",
        ),
        ("[limits]\nburst = -1", "limits.burst ({file}): expected greater than or equal to 1, got -1"),
        (
            '[auth]\naccess_ttl = "soon"',
            "auth.access_ttl ({file}): expected a duration such as 10s, 5m or 1h30m, got 'soon'",
        ),
        ('[auth]\naccess_ttl = "9999d"', "auth.access_ttl ({file}): expected a duration of at most 3650d, got '9999d'"),
        (
            "[server]\nallowed_origins = 5",
            "server.allowed_origins ({file}): expected a list, got 5",
        ),
    ],
)
def test_a_wrong_value_is_told_with_its_name_its_source_what_was_expected_and_what_came(
    write: Write, content: str, told: str
) -> None:
    file = write(content)
    error = refused(file=file)
    assert error.message == told.format(file=file)
    assert error.hint is not None and error.hint.startswith(f"{error.field}: ")


def test_a_wrong_variable_is_told_by_its_own_name() -> None:
    error = refused(environ={"KAMA_SERVER__PORT": "-1"})
    assert error.message == "server.port (KAMA_SERVER__PORT): expected greater than or equal to 0, got '-1'"


def test_a_wrong_flag_is_told_by_its_own_name() -> None:
    error = refused(flags={"log.level": ("loud", "--log-level")})
    assert error.message.startswith("log.level (--log-level): expected ")


def test_a_long_wrong_value_is_told_in_short() -> None:
    assert len(refused(environ={"KAMA_SERVER__PORT": "9" * 10_000}).message) < 300


@pytest.mark.parametrize(
    ("content", "told", "hint"),
    [
        ("[sever]\nport = 1", "there is no section [sever]", "did you mean server?"),
        ("[server]\nprot = 1", "there is no setting server.prot", "did you mean server.port?"),
        ("[server]\nburst = 1", "there is no setting server.burst", "did you mean limits.burst?"),
        ("port = 1", "expected port to stand in a section, got it outside", "did you mean server.port?"),
        ("server = 1", "expected [server] to be a section", None),
        ("[[server]]\nport = 1", "expected [server] to be a section", None),
        ("[zzz]", "there is no section [zzz]", "kama config env lists every setting"),
    ],
)
def test_an_unknown_name_in_a_file_is_told_with_the_nearest_right_one(
    write: Write, content: str, told: str, hint: str | None
) -> None:
    file = write(content)
    error = refused(file=file)
    assert error.message.startswith(f"{file}: ")
    assert told in error.message
    assert error.hint == hint


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("KAMA_SERVER__PROT", "KAMA_SERVER__PORT"),
        ("KAMA_LIMITS_BURST", "KAMA_LIMITS__BURST"),
        ("KAMA_CONFG", "KAMA_CONFIG"),
        ("KAMA_SERVER__port", "KAMA_SERVER__PORT"),
    ],
)
def test_an_unknown_variable_is_told_with_the_nearest_right_one(name: str, meant: str) -> None:
    error = refused(environ={name: "1"})
    assert error.message == f"there is no setting for the environment variable {name}"
    assert error.hint == f"did you mean {meant}?"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[server", "expected TOML in {file}"),
        (b"port = \xff", "expected UTF-8 in {file}"),
        (b"a\x00b", "expected TOML in {file}"),
    ],
)
def test_a_file_that_is_no_toml_is_told_by_its_name(write: Write, content: bytes, told: str) -> None:
    file = write(content)
    assert refused(file=file).message.startswith(told.format(file=file))


def test_a_file_that_is_not_there_is_told_with_who_named_it(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert refused(file=missing).message == f"expected --config to name a settings file, got nothing at {missing}"
    error = refused(environ={"KAMA_CONFIG": str(missing)})
    assert error.message == f"expected KAMA_CONFIG to name a settings file, got nothing at {missing}"


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    assert "got a folder at" in refused(file=tmp_path).message


def test_a_home_of_nobody_is_told_and_no_accident() -> None:
    assert "got nothing at ~nobody-at-all/x.toml" in refused(file=Path("~nobody-at-all/x.toml")).message


def test_a_file_that_cannot_be_read_is_told_with_the_systems_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as unreadable:
        unreadable.bind("socket.toml")
        message = refused(file=Path("socket.toml")).message
    assert message == f"cannot read the settings file socket.toml: {os.strerror(errno.ENXIO)}"


def test_a_data_folder_that_no_database_url_can_hold_is_refused(tmp_path: Path) -> None:
    error = refused(data_dir=tmp_path / "what?")
    assert error.message.startswith("data_dir (--data-dir): expected a path without a question mark, got ")


def test_a_data_folder_that_is_a_file_is_told(write: Write) -> None:
    file = write("")
    with pytest.raises(SettingsError, match=r"data_dir \(KAMA_DATA_DIR\): expected a folder.*that is a file"):
        ensure_data_dir(load_config(environ={"KAMA_DATA_DIR": str(file)}))


def test_a_data_folder_that_cannot_be_made_is_told(write: Write) -> None:
    with pytest.raises(SettingsError, match=r"data_dir \(--data-dir\): .*: Not a directory"):
        ensure_data_dir(load_config(data_dir=write("") / "below", environ={}))


# --- what is never printed -----------------------------------------------------------------------------

_PASSWORDS = [
    "redis://:hunter2@h:6379/0",
    "redis://user:hunter2@h",
    "postgresql+asyncpg://u:hunter2@h/d",
    "postgresql+asyncpg://u:hun/hunter2@h/d",
    "postgresql+asyncpg://u:p@hunter2@h/d",
    "postgresql+asyncpg://h/d?password=hunter2",
    "postgresql+asyncpg://h/d?user=u&sslpassword=hunter2&x=y",
]


@pytest.mark.parametrize("url", _PASSWORDS)
def test_a_password_in_a_url_is_masked(url: str) -> None:
    shown = show_value("store.url", url)
    assert "hunter2" not in shown and "***" in shown and shown[:5] == url[:5]


@pytest.mark.parametrize("url", ["redis://h:6379/0", "sqlite+aiosqlite:////srv/kama.db", "postgresql+asyncpg://u@h/d"])
def test_a_url_without_a_password_is_shown_whole(url: str) -> None:
    assert show_value("store.url", url) == url


def test_a_token_in_an_error_is_masked() -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoiVTEifQ.c2lnbmF0dXJl"
    assert conceal(f"Illegal header value b'Bearer {token}'") == "Illegal header value b'Bearer ***'"


def test_a_wrong_secret_is_not_repeated(write: Write) -> None:
    error = refused(file=write("[auth]\nsecret = 123456789"))
    assert "123456789" not in error.message and error.message.startswith("auth.secret (")


def test_a_wrong_url_is_told_without_its_password() -> None:
    error = refused(environ={"KAMA_STORE__URL": "mysql://u:hunter2@h/d"})
    assert "hunter2" not in error.message and "got 'mysql://u:***@h/d'" in error.message


def test_the_password_for_kafka_is_never_shown(write: Write) -> None:
    config = load_config(file=write('[kafka]\nsasl_password = "hunter2"'), environ={})
    assert config.settings.kafka.sasl_password is not None
    assert config.settings.kafka.sasl_password.get_secret_value() == "hunter2"
    assert show_value("kafka.sasl_password", config.value("kafka.sasl_password")) == "********"
    assert "hunter2" not in repr(config.settings)
