"""What holds for every command: exit codes, errors, JSON, what is imported, pipes that close, completion."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import SECRET

from kama import __version__, cli
from kama.commands import messages
from kama.errors import ExitCode

KAMA = [sys.executable, "-m", "kama"]
HEAVY = (
    "textual",
    "starlette",
    "uvicorn",
    "aiokafka",
    "sqlalchemy",
    "httpx2",
    "alembic",
    "redis",
    "websockets",
    "rich",
)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(arguments)
    written = capsys.readouterr()
    return int(code), written.out, written.err


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KAMA, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=30
    )


# --- help and version ----------------------------------------------------------------------------------


def test_alone_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith("Usage: kama ") and "kama send hello --from U123456 --to U654321" in err


@pytest.mark.parametrize("group", ["group", "config", "token"])
def test_a_group_of_commands_alone_shows_its_help(capsys: pytest.CaptureFixture[str], group: str) -> None:
    code, out, err = run(capsys, group)
    assert (code, out) == (ExitCode.USAGE, "") and err.startswith(f"Usage: kama {group} ")


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize(
    "command",
    [
        "",
        "serve",
        "send",
        "history",
        "kick",
        "monitor",
        "tail",
        "trace",
        "version",
        "token",
        "token issue",
        "token inspect",
        "group create",
        "group add",
        "group remove",
        "group dissolve",
        "group ls",
        "group show",
        "config show",
        "config check",
        "config init",
        "config path",
        "config env",
    ],
)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str, option: str) -> None:
    code, out, err = run(capsys, *command.split(), option)
    assert (code, err) == (0, "") and out.startswith(f"Usage: {f'kama {command}'.strip()} ")


def test_version_is_told_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    python = ".".join(map(str, sys.version_info[:3]))
    assert run(capsys, "--version") == (0, f"kama {__version__}\n", "")
    assert run(capsys, "version") == (0, f"kama {__version__} (Python {python})\n", "")
    assert json.loads(run(capsys, "version", "--json")[1]) == {"kama": __version__, "python": python}


# --- errors --------------------------------------------------------------------------------------------


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "nonsense")
    assert (code, out) == (2, "")
    assert err == "kama: error: No such command 'nonsense'.\nhint: kama --help\n"


@pytest.mark.parametrize("arguments", [("nonsense", "--json"), ("-j",), ("version", "--json", "extra"), ("send", "-j")])
def test_under_json_errors_are_json_even_where_nothing_can_be_parsed(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    told = json.loads(err)["error"]
    assert told["code"] == "usage" and told["message"] and told["hint"].endswith("--help")


def test_json_behind_two_dashes_is_text_and_leaves_errors_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "send", "--from", "x", "--to", "U2", "--", "--json")[2].startswith("kama: error: ")


def test_what_somebody_typed_cannot_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--json",)):
        err = run(capsys, "evil\x1b[2J\u202e\x9b\nkama: error: forged", *more)[2]
        assert not {"\x1b", "\u202e", "\x9b"} & set(err)
        assert err.count("\n") == (1 if more else 2)


def test_arguments_that_are_no_text_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "token", "U\udcff")
    assert code == 2 and err.startswith("kama: error: expected arguments in UTF-8, got ")


def test_a_token_among_the_arguments_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoiVTEifQ.c2lnbmF0dXJl"
    assert "c2lnbmF0" not in run(capsys, token)[2]


def unforeseen(*_: object) -> None:
    raise RuntimeError("no foot at redis://:hunter2@h, Bearer eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIn0.c2ln\nsecond line")


def test_what_nobody_foresaw_is_one_line_without_secrets_and_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_history_of", unforeseen)
    code, out, err = run(capsys, "history", "U1", "U2")
    assert (code, out) == (1, "")
    assert err == (
        "kama: error: RuntimeError: no foot at redis://:***@h, Bearer *** second line\n"
        "hint: kama --debug … shows where\n"
    )


def test_debug_shows_where_and_keeps_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_history_of", unforeseen)
    code, _, err = run(capsys, "--debug", "history", "U1", "U2")
    assert code == 1 and "Traceback (most recent call last)" in err and "in unforeseen" in err
    assert run(capsys, "--debug", "serve", "--mode", "nonsense")[0] == 2


def test_debug_as_text_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "send", "--from", "x", "--to", "U2", "--", "--debug")
    assert code == 2 and "Traceback" not in err


def test_a_failed_command_leaves_stdout_empty_and_no_traceback_in_a_process_of_its_own() -> None:
    done = process("token", "U1")
    assert (done.returncode, done.stdout) == (2, "") and "Traceback" not in done.stderr


# --- how it runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["token U1", "version", "--help", "config check", "monitor --help", "tail --help", "trace --help"]
)
def test_a_small_command_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; from kama import cli; code = cli.run({command.split()!r});"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    environment = {**os.environ, "KAMA_AUTH__SECRET": SECRET}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_a_table_imports_rich_and_nothing_heavier() -> None:
    code = (
        "import sys; from kama import cli; cli.run(['config', 'show']);"
        f"sys.exit(any(name in sys.modules for name in {HEAVY[:-1]!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=30).returncode == 0


@pytest.mark.heavy
def test_a_small_command_starts_in_well_under_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        process("version")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.8


@pytest.mark.parametrize("arguments", [("config", "env"), ("config", "show", "--json"), ("version",), ("--help",)])
def test_it_ends_quietly_when_whoever_reads_has_seen_enough(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*KAMA, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=30)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_stream_that_was_closed_before_it_began_is_no_failure(closed: str) -> None:
    command = f"{sys.executable} -m kama version {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_failure_that_is_told_once() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*KAMA, "version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("kama: error: OSError: ") and done.stderr.count("\n") == 2


def test_a_terminal_without_unicode_gets_numbers_and_no_traceback(tmp_path: Path) -> None:
    done = process("config", "env", PYTHONIOENCODING="ascii", KAMA_DATA_DIR=str(tmp_path / "世界"))
    assert done.returncode == 0
    done = process("config", "path", PYTHONIOENCODING="ascii", KAMA_DATA_DIR=str(tmp_path / "世界"))
    assert done.returncode == 0 and "\\u4e16\\u754c" in done.stdout


def test_other_bytes_than_utf8_on_stdin_are_a_usage_error_in_every_locale() -> None:
    environment = {**os.environ, "LC_ALL": "C", "KAMA_AUTH__SECRET": SECRET}
    command = [*KAMA, "send", "-", "--from", "U1", "--to", "U2", "-s", "http://127.0.0.1:1"]
    done = subprocess.run(command, env=environment, input=b"\xff", capture_output=True, timeout=30)
    assert done.returncode == 2 and b"expected UTF-8 on stdin, got something else" in done.stderr


def test_ctrl_c_ends_a_command_with_130_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [*KAMA, "history", "U1", "U2", "-s", f"http://127.0.0.1:{silent.getsockname()[1]}"]
        environment = {**os.environ, "KAMA_AUTH__SECRET": SECRET}
        waiting = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(20)
        connection, _ = silent.accept()  # now it waits for an answer
        with connection:
            waiting.send_signal(signal.SIGINT)
            out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out, err.strip()) == (130, "", "")


def test_ctrl_c_while_it_is_still_importing_ends_it_in_the_same_way(tmp_path: Path) -> None:
    # The first that kama.cli imports from elsewhere.
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = process("version", PYTHONPATH=os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [("kama se", "send"), ("kama se", "serve"), ("kama group dis", "dissolve"), ("kama config e", "env")],
)
def test_bash_completes_commands(words: str, expected: str) -> None:
    environment = {"_KAMA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert expected in process(**environment).stdout.split()


def test_the_completion_script_is_shown_for_bash() -> None:
    command = f"{sys.executable} -m kama --show-completion; exit $?"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "_KAMA_COMPLETE=complete_bash" in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True, timeout=30).returncode == 0
