"""`kama serve` as a process of its own: it needs nothing, says what to do next, tells what is wrong, and ends well."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from command_line import Kama
from support import SECRET, NodeProcess, Peer

KAMA = [sys.executable, "-m", "kama"]


class Serve:
    """`kama serve` with these arguments, in an empty folder, until it has told all that it tells at the start."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.log = folder / f"serve-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            command = [*KAMA, "serve", *arguments]
            self.process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stderr=log)
        deadline = time.monotonic() + 30
        while "kama send" not in self.text:
            assert self.process.poll() is None and time.monotonic() < deadline, self.text
            time.sleep(0.02)

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def url(self) -> str:
        found = re.search(r"listens on (\S+)", self.text)
        assert found
        return found[1]

    @property
    def next_commands(self) -> list[list[str]]:
        """What it prints to try next, as a shell would run it."""
        lines = [line.strip() for line in self.text.splitlines() if line.startswith("  kama ")]
        return [[*KAMA, *shlex.split(line)[1:]] for line in lines]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def started() -> Iterator[list[Serve]]:
    """Whatever a test starts is ended after it."""
    nodes: list[Serve] = []
    yield nodes
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def try_them(node: Serve, folder: Path, **environment: str) -> None:
    """The printed commands work in any folder, without the variables that the node had."""
    folder.mkdir()
    token, send = node.next_commands
    for command in (token, send):
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, ""), (command, done)
        assert len(done.stdout.split()) == 1


def test_it_needs_no_settings_and_what_it_prints_to_try_next_works(started: list[Serve], tmp_path: Path) -> None:
    node = Serve(tmp_path, "--port", "0")
    started.append(node)
    data = tmp_path / "home" / "data" / "kama"
    assert f"listens on {node.url} in channel mode" in node.text
    assert f"  data    {data}/kama.db\n" in node.text and f"  secret  {data}/secret\n" in node.text
    assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    try_them(node, tmp_path / "elsewhere")


def test_the_printed_commands_carry_the_data_folder_and_the_settings_file(started: list[Serve], tmp_path: Path) -> None:
    (tmp_path / "my settings.toml").write_text('[auth]\nissuer = "us"\n[server]\nport = 0')
    node = Serve(tmp_path, "--data-dir", "my data", "--config", "my settings.toml")
    started.append(node)
    try_them(node, tmp_path / "elsewhere")


def test_the_printed_commands_carry_what_came_from_variables_and_from_the_current_folder(
    started: list[Serve], tmp_path: Path
) -> None:
    (tmp_path / "kama.toml").write_text(f'[auth]\nsecret = "{SECRET}"')
    environment = {"KAMA_DATA_DIR": str(tmp_path / "data"), "KAMA_SERVER__PORT": "0"}
    node = Serve(tmp_path, **environment)
    started.append(node)
    assert "  secret  auth.secret (kama.toml)\n" in node.text
    try_them(node, tmp_path / "elsewhere")


def test_a_variable_that_the_printed_commands_need_is_named(started: list[Serve], tmp_path: Path) -> None:
    node = Serve(tmp_path, "--port", "0", KAMA_AUTH__SECRET=SECRET)
    started.append(node)
    assert "try next, in another terminal, where KAMA_AUTH__SECRET is set too:\n" in node.text
    assert SECRET not in node.text
    try_them(node, tmp_path / "elsewhere", KAMA_AUTH__SECRET=SECRET)


def test_an_address_for_all_is_printed_as_one_that_can_be_reached(started: list[Serve], tmp_path: Path) -> None:
    node = Serve(tmp_path, "--port", "0", "--host", "0.0.0.0")
    started.append(node)
    assert "listens on http://0.0.0.0:" in node.text
    assert f" -s {node.url.replace('0.0.0.0', '127.0.0.1')}" in node.text
    try_them(node, tmp_path / "elsewhere")


def test_the_same_secret_is_found_after_a_restart(started: list[Serve], tmp_path: Path) -> None:
    secrets = set()
    for _ in range(2):
        node = Serve(tmp_path, "--port", "0", "--data-dir", "data")
        started.append(node)
        node.end(signal.SIGTERM)
        secrets.add((tmp_path / "data" / "secret").read_text())
    assert len(secrets) == 1


# --- its end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
async def test_a_signal_drains_the_node_and_ends_it(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with NodeProcess(tmp_path / "node") as node:
        async with Peer(node.url, "U1") as peer:
            node.signal(number)
            closed, reason = await peer.wait_for_close()
            assert closed == 1001 and "retry_after_ms" in reason
        assert node.wait() == code
        log = node.log.read_text()
        assert "draining" in log and '"ended"' in log and "Traceback" not in log


# --- what is wrong at the start ------------------------------------------------------------------------


def refused(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """The exit code and the two lines of a `kama serve` that does not come up."""
    done = subprocess.run(
        [*KAMA, "serve", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # without the log
    assert len(told) == 2 and told[0].startswith("kama: error: ") and told[1].startswith("hint: "), told
    return done.returncode, told[0].removeprefix("kama: error: "), told[1].removeprefix("hint: ")


def test_a_port_in_use_is_told_with_what_takes_another(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "first") as first:
        port = first.url.rpartition(":")[2]
        code, error, hint = refused(tmp_path, "--port", port)
        assert (code, error) == (1, f"cannot listen on 127.0.0.1 port {port}: Address already in use")
        assert hint == "take another port: kama serve --port 0"
        assert httpx2.get(f"{first.url}/health/live", trust_env=False).status_code == 200


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_told(tmp_path: Path, host: str) -> None:
    code, error, hint = refused(tmp_path, "--port", "0", "--host", host)
    assert code == 1 and error.startswith(f"cannot listen on {host} port 0: ") and "attempting" not in error
    assert hint == "take another address: kama serve --host 127.0.0.1"


@pytest.mark.parametrize("secret", ["", SECRET])
def test_a_data_folder_that_is_a_file_is_told(tmp_path: Path, secret: str) -> None:
    (tmp_path / "file").write_text("mine")
    more = {"KAMA_AUTH__SECRET": secret} if secret else {}
    code, error, _ = refused(tmp_path, "--port", "0", "--data-dir", "file", **more)
    assert code == 2
    assert error.startswith("data_dir (--data-dir): expected a folder") and error.endswith("/file: that is a file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, error, _ = refused(tmp_path, "--port", "0", KAMA_DATA_DIR=str(tmp_path / "file" / "below"))
    assert code == 2 and error.startswith("data_dir (KAMA_DATA_DIR): ") and error.endswith("Not a directory")


def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kama.db").write_bytes(b"not a database " * 500)
    code, error, _ = refused(tmp_path, "--port", "0", "--data-dir", ".", KAMA_AUTH__SECRET=SECRET)
    assert code == 1
    assert error == f"store.url (default): cannot open the database {tmp_path}/kama.db: file is not a database"
    assert (tmp_path / "kama.db").read_bytes() == b"not a database " * 500


def test_a_folder_in_the_place_of_the_database_is_told(tmp_path: Path) -> None:
    code, error, _ = refused(tmp_path, "--port", "0", KAMA_STORE__URL=f"sqlite+aiosqlite:///{tmp_path}")
    assert code == 1
    assert error == f"store.url (KAMA_STORE__URL): cannot open the database {tmp_path}: unable to open database file"


def test_a_database_server_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    url = "postgresql+asyncpg://u:hunter2@127.0.0.1:1/d"
    code, error, hint = refused(tmp_path, "--port", "0", KAMA_STORE__URL=url)
    assert code in (1, 2) and error.startswith("store.url (KAMA_STORE__URL): ")
    assert "hunter2" not in error + hint


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"KAMA_STORE__URL": "nonsense"}, "store.url (KAMA_STORE__URL): expected sqlite+aiosqlite:///FILE or "),
        ({"KAMA_STORE__URL": "sqlite+aiosqlite:///:memory:"}, "store.url (KAMA_STORE__URL): expected sqlite"),
        ({"KAMA_AUTH__SECRET": "short"}, "auth.secret (KAMA_AUTH__SECRET): expected a secret of at least 32 bytes"),
        ({"KAMA_SEVER__PORT": "1"}, "there is no setting for the environment variable KAMA_SEVER__PORT"),
    ],
)
def test_settings_that_cannot_work_are_told(tmp_path: Path, environment: dict[str, str], told: str) -> None:
    code, error, _ = refused(tmp_path, "--port", "0", **environment)
    assert code == 2 and error.startswith(told)


def test_kafka_mode_without_a_kafka_is_told_with_the_setting_that_mends_it(tmp_path: Path) -> None:
    nobody = {"KAMA_NODE__MODE": "kafka", "KAMA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    code, error, hint = refused(tmp_path, "--port", "0", **nobody)
    assert code == 3
    assert error.startswith("no Kafka broker answers at 127.0.0.1:1 (kafka.bootstrap_servers)")
    assert "KAMA_KAFKA__BOOTSTRAP_SERVERS" in hint


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--mode nonsense", "Invalid value for '--mode': "),
        ("--port 99999", "server.port (--port): expected less than or equal to 65535, got 99999"),
        ("--port x", "Invalid value for '--port': "),
        ("--host=", "server.host (--host): expected at least 1 character, got ''"),
        ("--log-level loud", "Invalid value for '--log-level': "),
        ("--config /no/such", "expected --config to name a settings file, got nothing at /no/such"),
        ("extra", "Got unexpected extra argument"),
    ],
)
def test_flags_that_cannot_work_are_told_by_their_name(kama: Kama, arguments: str, told: str) -> None:
    done = kama("serve", *arguments.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"kama: error: {told}") and "\nhint: " in done.err and "Value error" not in done.err


def test_it_ends_quietly_when_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*KAMA, "serve", "--port", "0"], cwd=tmp_path, stderr=writer, timeout=30)
    os.close(writer)
    assert done.returncode == 0


def test_two_nodes_that_start_at_once_in_one_folder_agree_on_the_secret(started: list[Serve], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*KAMA, "serve", "--port", port, "--data-dir", "data"]
        processes = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(2)]
        for process in processes:
            process.communicate(timeout=30)
        assert [process.returncode for process in processes] == [1, 1]
    assert sorted(path.name for path in (tmp_path / "data").iterdir() if "secret" in path.name) == ["secret"]
