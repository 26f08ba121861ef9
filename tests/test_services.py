"""scripts/services with Redis, and scripts/test, run as a developer runs them: what they start, they end."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client

ROOT = Path(__file__).resolve().parent.parent
SERVICES = str(ROOT / "scripts" / "services")
CONTROLS = ("CI", "KAMA_TEST_", "KAMA_SERVICES_RUN", "KAMA_SERVICES_DIR")

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on the PATH")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

Environment = dict[str, str]


@contextmanager
def services_in(folder: Path) -> Iterator[Environment]:
    """The environment for services in that folder, which are ended after."""
    chosen = {name: value for name, value in os.environ.items() if not name.startswith(CONTROLS)}
    chosen["KAMA_SERVICES_DIR"] = str(folder)
    try:
        yield chosen
    finally:
        subprocess.run([sys.executable, SERVICES, "down"], env=chosen, check=True, capture_output=True)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """The environment for services in a folder of this test, which are ended with it."""
    with services_in(tmp_path / "services") as chosen:
        yield chosen


@pytest.fixture
def nowhere(environment: Environment, tmp_path: Path) -> Environment:
    """The same on a machine that has neither Redis nor a way to get it."""
    empty = tmp_path / "empty"
    empty.mkdir()
    return {**environment, "PATH": str(empty)}


def services(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SERVICES, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def variables(exports: str) -> dict[str, str]:
    """What a shell would have after reading the lines."""
    lines = exports.splitlines()
    assert all(re.fullmatch(r"export [A-Z_]+=\S+", line) for line in lines), exports
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


def started_url(environment: Environment, service: str, variable: str) -> str:
    """Where the service is that `up` starts or finds."""
    done = services(environment, "up", service)
    assert done.returncode == 0, done.stderr
    return variables(done.stdout)[variable]


def redis_up(environment: Environment) -> str:
    return started_url(environment, "redis", "KAMA_TEST_REDIS_URL")


def record(environment: Environment, server: str) -> dict[str, Any]:
    """What is written down of a running server."""
    return json.loads(Path(environment["KAMA_SERVICES_DIR"], server, "started.json").read_text())


@contextmanager
def killed_run(environment: Environment, *wanted: str) -> Iterator[Environment]:
    """The variables of a run that was killed with no time to tidy up; its services and its command still run."""
    command = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, SERVICES, "run", *wanted, "--", sys.executable, "-c", command],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        seen = json.loads(runner.stdout.readline())
        runner.kill()
    yield seen


def listens(port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def listeners(pid: int) -> set[str]:
    """The addresses, as the kernel writes them, that the process listens on for TCP."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


LOOPBACK = {"0100007F"}


def answers(url: str) -> bool:
    try:
        with redis_client.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis_client.ConnectionError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@needs_redis
def test_up_prints_where_redis_answers_and_down_ends_it(environment: Environment) -> None:
    url = redis_up(environment)
    assert answers(url)
    assert services(environment, "down").returncode == 0
    assert not answers(url)
    assert not Path(environment["KAMA_SERVICES_DIR"], "redis").exists()


@needs_redis
def test_up_prints_the_setting_of_a_node_as_well(environment: Environment) -> None:
    printed = variables(services(environment, "up", "redis").stdout)
    assert printed == dict.fromkeys(("KAMA_TEST_REDIS_URL", "KAMA_REDIS__URL"), printed["KAMA_TEST_REDIS_URL"])


@needs_redis
def test_a_second_up_finds_the_running_redis(environment: Environment) -> None:
    assert redis_up(environment) == redis_up(environment)


@needs_redis
def test_up_brings_a_killed_server_back_to_its_port(environment: Environment) -> None:
    url = redis_up(environment)
    assert services(environment, "kill", "redis").returncode == 0
    assert not answers(url)
    assert redis_up(environment) == url
    assert answers(url)


@needs_redis
def test_a_stopped_server_is_restarted_on_its_port(environment: Environment) -> None:
    url = redis_up(environment)
    assert services(environment, "stop", "redis").returncode == 0
    assert not answers(url)
    assert services(environment, "restart", "redis").returncode == 0
    assert answers(url)


@needs_redis
def test_a_paused_server_keeps_its_connections_and_goes_on(environment: Environment) -> None:
    with redis_client.Redis.from_url(redis_up(environment), socket_timeout=0.3, retry=None) as client:
        assert client.ping()
        assert services(environment, "pause", "redis").returncode == 0
        with pytest.raises(redis_client.TimeoutError):
            client.ping()
        assert services(environment, "resume", "redis").returncode == 0
        assert client.ping()


@needs_redis
def test_down_ends_a_paused_server(environment: Environment) -> None:
    url = redis_up(environment)
    services(environment, "pause", "redis")
    pid = record(environment, "redis")["pid"]
    assert services(environment, "down").returncode == 0
    assert not runs(pid)
    assert not answers(url)


@needs_redis
def test_a_command_of_a_run_can_restart_the_runs_own_server(environment: Environment) -> None:
    own = redis_up(environment)
    command = f"""
import os, subprocess, sys
print(os.environ["KAMA_TEST_REDIS_URL"], flush=True)
sys.exit(subprocess.call([sys.executable, {SERVICES!r}, "kill", "redis"]))
"""
    done = services(environment, "run", "redis", "--", sys.executable, "-c", command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() != own
    assert answers(own)


def test_a_server_that_is_not_there_is_refused_by_name(environment: Environment) -> None:
    done = services(environment, "restart", "kafka-2")
    assert done.returncode == 2
    assert "no server 'kafka-2' is on record here, only: none" in done.stderr


# Loses the race for its port the first time.
UNLUCKY = """\
#!/bin/sh
if mkdir "{seen}" 2>/dev/null; then
  echo "bind: Address already in use"
  exit 1
fi
exec "{redis}" "$@"
"""


@needs_redis
def test_a_port_that_was_taken_meanwhile_is_replaced_by_another(environment: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    unlucky = folder / "redis-server"
    unlucky.write_text(UNLUCKY.format(seen=tmp_path / "seen", redis=shutil.which("redis-server")))
    unlucky.chmod(0o755)
    assert answers(redis_up({**environment, "PATH": f"{folder}:{environment['PATH']}"}))
    assert (tmp_path / "seen").exists()


@needs_redis
def test_a_server_that_never_comes_up_is_reported_with_its_last_words(nowhere: Environment) -> None:
    broken = Path(nowhere["PATH"], "redis-server")
    broken.write_text("#!/bin/sh\necho out of luck\nexit 1\n")
    broken.chmod(0o755)
    done = services(nowhere, "up", "redis")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did not come up in 3 attempts (redis: out of luck)" in done.stderr


@needs_redis
def test_down_leaves_a_process_alone_that_only_has_the_recorded_id(environment: Environment, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        folder = tmp_path / "services" / "redis"
        folder.mkdir(parents=True)
        record = {"url": "redis://127.0.0.1:1/0", "pid": bystander.pid, "beginning": "1"}
        (folder / "started.json").write_text(json.dumps(record))
        assert services(environment, "down").returncode == 0
        assert bystander.poll() is None
        bystander.kill()


# Its first thread is gone, so the system calls it a zombie, but another one still holds the port.
HALF_ENDED = """
import ctypes, socket, threading
server = socket.create_server(("127.0.0.1", 0))
def serve():
    print(server.getsockname()[1], flush=True)
    while True:
        server.accept()
threading.Thread(target=serve).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@needs_proc
def test_down_ends_a_process_of_which_only_the_first_thread_has_ended(environment: Environment, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HALF_ENDED], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            assert eventually(lambda: not runs(server.pid))
            stat = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            folder = tmp_path / "services" / "redis"
            folder.mkdir(parents=True)
            (folder / "started.json").write_text(
                json.dumps({"url": "redis://127.0.0.1:1/0", "pid": server.pid, "beginning": stat[19]})
            )
            assert services(environment, "down").returncode == 0
            assert not listens(port)
        finally:
            server.kill()


@needs_redis
def test_run_gives_the_command_a_redis_and_ends_it_after_a_failure(environment: Environment) -> None:
    command = "import os, sys; print('url', os.environ['KAMA_TEST_REDIS_URL']); sys.exit(7)"
    done = services(environment, "run", "redis", "--", sys.executable, "-c", command)
    assert done.returncode == 7
    assert not answers(done.stdout.split()[1])


@needs_redis
def test_run_told_to_end_ends_the_command_and_redis(environment: Environment) -> None:
    command = "import os, sys; print(os.environ['KAMA_TEST_REDIS_URL'], flush=True); sys.stdin.read()"
    runner = subprocess.Popen(
        [sys.executable, SERVICES, "run", "redis", "--", sys.executable, "-c", command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with runner:
        assert runner.stdout is not None
        url = runner.stdout.readline().strip()
        assert answers(url)
        runner.terminate()
        assert runner.wait(timeout=20) == 128 + signal.SIGTERM
    assert not answers(url)


@needs_redis
@needs_proc
def test_what_a_killed_run_left_behind_is_ended_by_the_next(environment: Environment) -> None:
    with killed_run(environment, "redis") as seen:
        assert answers(seen["KAMA_TEST_REDIS_URL"])
        left = Path(environment["KAMA_SERVICES_DIR"], seen["KAMA_SERVICES_RUN"])
        assert left.exists()
        assert services(environment, "run", "redis", "--", sys.executable, "-c", "").returncode == 0
    assert not answers(seen["KAMA_TEST_REDIS_URL"])
    assert not left.exists()


@needs_proc
def test_the_command_of_a_killed_run_is_ended_by_the_next(environment: Environment) -> None:
    own = {**environment, "KAMA_TEST_REDIS_URL": "redis://127.0.0.1:9/0"}
    command = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, SERVICES, "run", "redis", "--", sys.executable, "-c", command],
        env=own,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        orphan = int(runner.stdout.readline())
        runner.kill()
    assert runs(orphan)
    assert services(own, "run", "redis", "--", sys.executable, "-c", "").returncode == 0
    assert not runs(orphan)


@needs_redis
def test_a_url_that_is_set_already_is_used_as_it_is(environment: Environment) -> None:
    command = "import os; print(os.environ['KAMA_TEST_REDIS_URL'])"
    own = {**environment, "KAMA_TEST_REDIS_URL": "redis://127.0.0.1:9/3"}
    done = services(own, "run", "redis", "--", sys.executable, "-c", command)
    assert done.stdout == "redis://127.0.0.1:9/3\n"


@needs_proc
def test_a_process_that_the_command_forgot_is_named_and_ended(environment: Environment) -> None:
    forgetful = textwrap.dedent("""
        import subprocess, sys
        child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
        print(child.pid)
        """)
    own = {**environment, "KAMA_TEST_REDIS_URL": "redis://127.0.0.1:9/0"}
    done = services(own, "run", "redis", "--", sys.executable, "-c", forgetful)
    forgotten = int(done.stdout)
    assert f"left process {forgotten} behind" in done.stderr
    assert not runs(forgotten)


def test_without_redis_a_run_goes_on_and_says_so_in_one_line(nowhere: Environment) -> None:
    command = "import os; print(os.environ.get('KAMA_TEST_REDIS_URL'))"
    done = services(nowhere, "run", "redis", "--", sys.executable, "-c", command)
    assert (done.returncode, done.stdout) == (0, "None\n")
    assert "no redis-server on the PATH" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("control", [{"CI": "true"}, {"KAMA_TEST_REQUIRE_SERVICES": "1"}])
def test_without_redis_a_run_that_requires_it_fails(nowhere: Environment, control: Environment) -> None:
    done = services({**nowhere, **control}, "run", "redis", "--", sys.executable, "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no redis-server on the PATH" in done.stderr


def test_without_redis_up_fails_and_exports_nothing(nowhere: Environment) -> None:
    done = services(nowhere, "up", "redis")
    assert (done.returncode, done.stdout) == (1, "")


def test_an_unknown_service_is_refused_by_name(environment: Environment) -> None:
    done = services(environment, "up", "mysql")
    assert done.returncode == 2
    assert "expected kafka or redis or postgres, got 'mysql'" in done.stderr


@pytest.mark.parametrize(
    ("word", "expected"), [("kafka=2", "kafka=1 or kafka=3"), ("kafka=", "kafka=1 or"), ("redis=3", "redis=1")]
)
def test_a_number_of_servers_that_a_service_cannot_have_is_refused(
    environment: Environment, word: str, expected: str
) -> None:
    done = services(environment, "up", word)
    assert done.returncode == 2
    assert f"expected {expected}" in done.stderr


# A container engine in its simplest form: one "container" that is a process on this machine.
ENGINE = """\
#!/bin/sh
case "$1" in
  info) exit 0 ;;
  run)
    port=$(echo "$4" | cut -d: -f2)
    "{redis}" --port "$port" --bind 127.0.0.1 --save '' >/dev/null 2>&1 </dev/null &
    echo $! ;;
  inspect) kill -0 "$4" 2>/dev/null && echo true ;;
  rm) kill "$4" ;;
esac
"""


@needs_redis
def test_without_a_redis_of_its_own_the_machines_container_engine_provides_one(
    nowhere: Environment,
) -> None:
    engine = Path(nowhere["PATH"], "docker")
    engine.write_text(ENGINE.format(redis=shutil.which("redis-server")))
    engine.chmod(0o755)
    Path(nowhere["PATH"], "cut").symlink_to(shutil.which("cut") or "")
    url = redis_up(nowhere)
    assert answers(url)
    assert services(nowhere, "down").returncode == 0
    assert eventually(lambda: not answers(url))


SUITE = """\
import pytest

def test_light(): pass

@pytest.mark.skip(reason="not now")
def test_skipped(): pass

@pytest.mark.heavy
def test_heavy(): assert {heavy}
"""


def both_passes(folder: Path, heavy: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = heavy: alone\n")
    (folder / "test_suite.py").write_text(SUITE.format(heavy=heavy))
    command = [sys.executable, str(ROOT / "scripts" / "test"), "-n", "0", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_closing_line_counts_both_passes(tmp_path: Path) -> None:
    done = both_passes(tmp_path, "True")
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"=+ 2 passed, 1 skipped in [\d.]+s =+", done.stdout.splitlines()[-1])


def test_a_failure_in_either_pass_fails_the_whole(tmp_path: Path) -> None:
    done = both_passes(tmp_path, "False")
    assert done.returncode == 1
    assert re.fullmatch(r"=+ 1 failed, 1 passed, 1 skipped in [\d.]+s =+", done.stdout.splitlines()[-1])


def test_a_pass_with_nothing_to_run_does_not_fail_the_other(tmp_path: Path) -> None:
    assert both_passes(tmp_path, "True", "-k", "light").returncode == 0
