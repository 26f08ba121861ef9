"""What a command shows a node, and the secret that a node makes for itself."""

from __future__ import annotations

import multiprocessing
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kama.address import DEFAULT_SERVER, check_server
from kama.config import Config, load_config
from kama.credentials import ensure_secret, find_secret, find_server, find_token
from kama.errors import SettingsError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A settings file with this content."""

    def make(content: str | bytes, name: str = "some.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


# --- the node and the token of a command ---------------------------------------------------------------


def test_the_node_comes_from_the_flag_then_the_variable_then_the_default() -> None:
    environ = {"KAMA_SERVER": "http://b:1"}
    assert find_server("http://a:1", environ) == "http://a:1"
    assert find_server(None, environ) == "http://b:1"
    assert find_server(None, {}) == DEFAULT_SERVER


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://h:1/", "http://h:1"),
        ("HTTPS://h/chat/", "https://h/chat"),
        ("http://[::1]:80", "http://[::1]:80"),
        (" http://h ", "http://h"),
    ],
)
def test_the_url_of_a_node_is_used_without_a_slash_at_its_end(given: str, used: str) -> None:
    assert check_server(given, "--server") == used


@pytest.mark.parametrize(
    "server",
    ["", "h:1", "ftp://h", "http://", "http://h:x", "http://h:70000", "http://[::1", "http://h/?a=b", "http://u@h"],
)
def test_what_is_no_url_of_a_node_is_told_with_who_named_it(server: str) -> None:
    with pytest.raises(SettingsError, match=r"server \(--server\): expected a node's URL such as http://127"):
        find_server(server, {})


def test_a_url_without_a_scheme_gets_a_hint() -> None:
    with pytest.raises(SettingsError) as error:
        find_server(None, {"KAMA_SERVER": "localhost:8000"})
    assert error.value.hint == "did you mean http://localhost:8000?"
    assert "(KAMA_SERVER)" in error.value.message


def test_a_password_in_the_url_of_a_node_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as error:
        find_server("http://u:hunter2@h", {})
    assert "hunter2" not in error.value.message


def test_a_token_comes_from_its_file_or_else_from_its_variable(write: Write) -> None:
    file = write(" of-the-file \n")
    assert find_token(str(file), {"KAMA_TOKEN": "of-the-variable"}) == "of-the-file"
    assert find_token(None, {"KAMA_TOKEN": "of-the-variable\n"}) == "of-the-variable"
    assert find_token(None, {}) is None
    assert find_token(None, {"KAMA_TOKEN": ""}) is None


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"a\nb", b"caf\xc3\xa9", b"\xff"])
def test_what_is_no_token_is_refused_and_not_repeated(write: Write, content: bytes) -> None:
    file = write(content)
    with pytest.raises(
        SettingsError, match=rf"expected a token in {re.escape(str(file))}, got (nothing|something else)$"
    ):
        find_token(str(file), {})


def test_a_token_file_that_is_not_there_is_told() -> None:
    with pytest.raises(SettingsError, match="cannot read the token in /no/such: No such file or directory"):
        find_token("/no/such", {})


# --- the secret ----------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(data_dir=tmp_path / "data", environ={})


def test_a_made_secret_is_long_and_its_owners_alone(config: Config) -> None:
    secret = ensure_secret(config)
    assert len(secret) >= 64
    assert stat.S_IMODE(config.secret_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.data_dir.stat().st_mode) == 0o700


def test_a_secret_is_made_once_and_found_again(config: Config) -> None:
    assert ensure_secret(config) == ensure_secret(config) == find_secret(config)


def test_nothing_but_the_secret_is_left_in_the_folder(config: Config) -> None:
    ensure_secret(config)
    assert [path.name for path in config.data_dir.iterdir()] == ["secret"]


def test_a_configured_secret_makes_no_file(tmp_path: Path) -> None:
    config = load_config(data_dir=tmp_path / "data", environ={"KAMA_AUTH__SECRET": "configured"})
    assert ensure_secret(config) == find_secret(config) == "configured"
    assert not config.data_dir.exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_secret_that_others_can_read_is_refused_with_what_mends_it(config: Config, mode: int) -> None:
    ensure_secret(config)
    config.secret_path.chmod(mode)
    with pytest.raises(SettingsError, match=f"only its owner can read, got mode {mode:04o} at ") as error:
        find_secret(config)
    assert error.value.hint == f"chmod 600 {config.secret_path}"


def test_a_secret_that_is_missing_is_told_with_what_makes_one(config: Config) -> None:
    with pytest.raises(SettingsError, match="there is no secret") as error:
        find_secret(config)
    assert error.value.hint == "start a node once (kama serve), it makes one"


def test_a_folder_in_the_place_of_the_secret_is_told(config: Config) -> None:
    config.secret_path.mkdir(parents=True)
    with pytest.raises(SettingsError, match="cannot read the secret in .*: Is a directory"):
        ensure_secret(config)


def test_bytes_that_are_no_text_are_told_and_not_repeated(config: Config) -> None:
    config.data_dir.mkdir()
    config.secret_path.write_bytes(b"\xff" * 64)
    config.secret_path.chmod(0o600)
    with pytest.raises(SettingsError, match="expected a secret in ASCII in .*, got other bytes"):
        find_secret(config)


def _make(folder: str, barrier: Any, results: Any) -> None:
    config = load_config(data_dir=Path(folder), environ={})
    barrier.wait()
    results.put(ensure_secret(config))


def test_processes_that_make_it_at_once_agree_on_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    count = 4
    barrier, results = context.Barrier(count), context.Queue()
    processes = [context.Process(target=_make, args=(str(tmp_path), barrier, results)) for _ in range(count)]
    for process in processes:
        process.start()
    made = {results.get(timeout=40) for _ in processes}
    for process in processes:
        process.join()
    assert made == {find_secret(load_config(data_dir=tmp_path, environ={}))}
