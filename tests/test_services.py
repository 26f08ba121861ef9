"""scripts/services and scripts/test, run as a developer runs them: what they start, they end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis as redis_client

ROOT = Path(__file__).resolve().parent.parent
SERVICES = str(ROOT / "scripts" / "services")
CONTROLS = ("CI", "KAMA_TEST_REQUIRE_SERVICES", "KAMA_TEST_REDIS_URL", "KAMA_SERVICES_RUN")

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on the PATH")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

Environment = dict[str, str]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """The environment for services in a folder of this test, which are ended with it."""
    chosen = {name: value for name, value in os.environ.items() if name not in CONTROLS}
    chosen["KAMA_SERVICES_DIR"] = str(tmp_path / "services")
    yield chosen
    subprocess.run([sys.executable, SERVICES, "down"], env=chosen, check=True, capture_output=True)


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


def url_in(exports: str) -> str:
    found = re.fullmatch(r"export KAMA_TEST_REDIS_URL=(redis://127\.0\.0\.1:\d+/0)\n", exports)
    assert found, exports
    return found[1]


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
    url = url_in(services(environment, "up", "redis").stdout)
    assert answers(url)
    assert services(environment, "down").returncode == 0
    assert not answers(url)


@needs_redis
def test_a_second_up_finds_the_running_redis(environment: Environment) -> None:
    assert services(environment, "up").stdout == services(environment, "up").stdout


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
    command = """
import os, time
print(os.environ["KAMA_TEST_REDIS_URL"], os.getpid(), flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, SERVICES, "run", "redis", "--", sys.executable, "-c", command],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        assert runner.stdout is not None
        url, orphan = runner.stdout.readline().split()
        runner.kill()
    assert answers(url)
    assert runs(int(orphan))
    assert services(environment, "run", "redis", "--", sys.executable, "-c", "").returncode == 0
    assert not answers(url)
    assert not runs(int(orphan))


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
    done = services(nowhere, "up")
    assert (done.returncode, done.stdout) == (1, "")


def test_an_unknown_service_is_refused_by_name(environment: Environment) -> None:
    done = services(environment, "up", "mysql")
    assert done.returncode == 2
    assert "expected redis, got 'mysql'" in done.stderr


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
  rm) kill "$3" ;;
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
    url = url_in(services(nowhere, "up", "redis").stdout)
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
    command = [sys.executable, str(ROOT / "scripts" / "test"), *arguments]
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
