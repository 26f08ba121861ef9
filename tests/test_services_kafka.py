"""scripts/services with Apache Kafka: a real cluster, used through the client that a node uses."""

import asyncio
import json
import re
import shutil
import sys
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from test_services import (
    LOOPBACK,
    ROOT,
    SERVICES,
    Environment,
    killed_run,
    listeners,
    listens,
    needs_proc,
    record,
    services,
    services_in,
    started_url,
    variables,
)

VARIABLE = "KAMA_TEST_KAFKA_BOOTSTRAP_SERVERS"
BROKERS = ("kafka-1", "kafka-2", "kafka-3")

needs_java = pytest.mark.skipif(
    not (shutil.which("java") and shutil.which("mvn")), reason="Java and Maven are not on the PATH"
)


def heavy(test: object) -> object:
    """Real brokers: some seconds, and as long as a download takes the first time."""
    return pytest.mark.heavy(pytest.mark.timeout(300)(needs_java(test)))


def drill(test: object) -> object:
    """What each run of the tests with Kafka rests on shows itself there: this is for whoever changes it."""
    return pytest.mark.drill(heavy(test))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Three brokers for this module, ended with it."""
    with services_in(tmp_path_factory.mktemp("kafka") / "services") as chosen:
        yield chosen


@pytest.fixture
def brokers(environment: Environment) -> str:
    """Where they are: started by the first test that asks, found by the others."""
    return started_url(environment, "kafka=3", VARIABLE)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Environment]:
    """Services of this test alone, with none started yet."""
    with services_in(tmp_path / "services") as chosen:
        yield chosen


@asynccontextmanager
async def admin(brokers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=brokers)
    try:
        await client.start()
        yield client
    finally:
        await client.close()


@pytest.fixture
async def topic(brokers: str, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own, on all three brokers."""
    name = re.sub(r"\W", "_", request.node.name)
    async with admin(brokers) as client:
        answer = await client.create_topics([NewTopic(name, num_partitions=3, replication_factor=3)])
    assert [error[1] for error in answer.topic_errors] == [0]
    return name


@asynccontextmanager
async def producer(brokers: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True) as client:
        yield client


@asynccontextmanager
async def consumer(brokers: str, topic: str, group: str | None) -> AsyncIterator[AIOKafkaConsumer]:
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=brokers, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest"
    ) as client:
        yield client


async def values(client: AIOKafkaConsumer, count: int) -> list[bytes]:
    """The next that many messages."""
    return [(await asyncio.wait_for(client.getone(), 20)).value for _ in range(count)]


def ports(brokers: str) -> list[int]:
    return [int(address.rpartition(":")[2]) for address in brokers.split(",")]


@drill
async def test_what_an_idempotent_producer_sends_reaches_a_group(brokers: str, topic: str) -> None:
    async with producer(brokers) as sender, consumer(brokers, topic, "readers") as reader:
        await sender.send_and_wait(topic, b"hello", key=b"a", headers=[("from", b"test")])
        message = await asyncio.wait_for(reader.getone(), 20)
    assert (message.key, message.value, message.headers) == (b"a", b"hello", (("from", b"test"),))


@drill
async def test_a_group_goes_on_after_the_offset_that_it_committed(brokers: str, topic: str) -> None:
    async with producer(brokers) as sender:
        for number in range(4):
            await sender.send_and_wait(topic, b"%d" % number, partition=0)
    async with consumer(brokers, topic, "committing") as first:
        await values(first, 2)
        await first.commit({TopicPartition(topic, 0): 2})
    async with consumer(brokers, topic, "committing") as second:
        assert await values(second, 2) == [b"2", b"3"]


@drill
async def test_two_members_of_a_group_share_the_partitions(brokers: str, topic: str) -> None:
    async with consumer(brokers, topic, "sharing") as one, consumer(brokers, topic, "sharing") as other:
        async with asyncio.timeout(30):
            while not (one.assignment() and other.assignment() and not one.assignment() & other.assignment()):
                await asyncio.sleep(0.05)
        assert len(one.assignment() | other.assignment()) == 3


@drill
async def test_a_write_needs_two_of_the_three_copies(brokers: str, topic: str) -> None:
    async with admin(brokers) as client:
        [answer] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        [described] = await client.describe_topics([topic])
    settings = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert settings["min.insync.replicas"] == "2"
    assert {len(partition["replicas"]) for partition in described["partitions"]} == {3}


@drill
def test_a_second_up_finds_the_running_brokers(environment: Environment, brokers: str) -> None:
    assert variables(services(environment, "up", "kafka").stdout) == {
        VARIABLE: brokers,
        "KAMA_KAFKA__BOOTSTRAP_SERVERS": brokers,
    }


@drill
@needs_proc
def test_brokers_and_controllers_listen_on_loopback_only(environment: Environment, brokers: str) -> None:
    assert [listeners(record(environment, name)["pid"]) for name in BROKERS] == [LOOPBACK] * 3


@drill
async def test_a_broker_killed_under_load_costs_no_acknowledged_message(
    environment: Environment, brokers: str, topic: str
) -> None:
    async with producer(brokers) as sender:
        acknowledged = 0

        async def send(count: int) -> None:
            nonlocal acknowledged
            for _ in range(count):
                await sender.send_and_wait(topic, b"%d" % acknowledged, key=b"%d" % acknowledged)
                acknowledged += 1

        await send(50)
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(asyncio.to_thread(services, environment, "kill", "kafka-2"))
            while not killing.done():
                await send(1)
        # More keys than partitions: some go to those that the killed broker led.
        await asyncio.wait_for(send(50), 60)
    returned = await asyncio.to_thread(services, environment, "restart", "kafka-2")
    assert returned.returncode == 0, returned.stderr
    # Through the one that was away: it knows the cluster again.
    async with consumer(brokers.split(",")[1], topic, None) as reader:
        assert set(await values(reader, acknowledged)) == {b"%d" % number for number in range(acknowledged)}


@drill
async def test_up_brings_three_killed_brokers_back_with_their_messages(
    environment: Environment, brokers: str, topic: str
) -> None:
    async with producer(brokers) as sender:
        await sender.send_and_wait(topic, b"kept")
    for name in BROKERS:
        services(environment, "kill", name)
    assert started_url(environment, "kafka", VARIABLE) == brokers
    async with consumer(brokers, topic, None) as reader:
        assert await values(reader, 1) == [b"kept"]


@drill
async def test_a_paused_broker_hangs_and_goes_on(environment: Environment, brokers: str) -> None:
    port = ports(brokers)[0]
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    try:
        services(environment, "pause", "kafka-1")
        writing.write(API_VERSIONS)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reading.readexactly(4), 0.5)
        services(environment, "resume", "kafka-1")
        assert await asyncio.wait_for(reading.readexactly(4), 20)
    finally:
        writing.close()
        await writing.wait_closed()


# Which requests do you know? Version 0, number 1, of nobody.
API_VERSIONS = b"\0\0\0\x0a" + b"\0\x12" + b"\0\0" + b"\0\0\0\x01" + b"\xff\xff"


@drill
@needs_proc
def test_what_a_killed_run_left_behind_is_ended_by_the_next(fresh: Environment) -> None:
    with killed_run(fresh, "kafka") as seen:
        [port] = ports(seen[VARIABLE])
        assert listens(port)
        own = {**fresh, "KAMA_TEST_REDIS_URL": "redis://127.0.0.1:9/0"}
        assert services(own, "run", "redis", "--", sys.executable, "-c", "").returncode == 0
    assert not listens(port)


@heavy
def test_a_run_keeps_what_was_sent_through_a_restart_and_leaves_nothing(fresh: Environment) -> None:
    command = f"""
import asyncio, os, subprocess, sys
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
where = {{"bootstrap_servers": os.environ["{VARIABLE}"]}}
async def main():
    admin = AIOKafkaAdminClient(**where)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(**where, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait("kept", b"message")
    subprocess.run([sys.executable, {SERVICES!r}, "restart", "kafka-1"], check=True)
    async with AIOKafkaConsumer("kept", **where, auto_offset_reset="earliest") as consumer:
        print(where["bootstrap_servers"], (await consumer.getone()).value.decode())
asyncio.run(main())
"""
    done = services(fresh, "run", "kafka", "--", sys.executable, "-c", command)
    assert done.returncode == 0, done.stderr
    where, value = done.stdout.split()
    assert value == "message"
    assert not listens(ports(where)[0])
    assert {path.name for path in Path(fresh["KAMA_SERVICES_DIR"]).iterdir()} == {"lock"}


def test_without_java_a_run_goes_on_and_says_so_in_one_line(fresh: Environment, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = services({**fresh, "PATH": str(empty)}, "run", "kafka=3", "--", sys.executable, "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "kafka: Apache Kafka needs Java 17" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_java_that_is_too_old_is_named(fresh: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    old = folder / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
    old.chmod(0o755)
    done = services({**fresh, "PATH": str(folder)}, "up", "kafka")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"needs Java 17 or newer, and {old} is 11" in done.stderr


# One "container": a process that tells every client of a cluster of one broker, on the published port.
ENGINE = """\
#!{python}
import json, os, socket, struct, subprocess, sys
words = sys.argv[1:]
NOWHERE = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
if words[0] == "run":
    port = int(words[3].split(":")[1])
    open({seen!r}, "w").write(json.dumps(words))
    print(subprocess.Popen([{python!r}, __file__, "serve", str(port)], **NOWHERE).pid)
elif words[0] == "serve":
    port = int(words[1])
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            with server.accept()[0] as client:
                client.recv(100)
                answer = struct.pack(">iiih9sihii", 1, 1, 1, 9, b"127.0.0.1", port, -1, 1, 0)
                client.sendall(struct.pack(">i", len(answer)) + answer)
elif words[0] == "inspect":
    os.kill(int(words[3]), 0)
    print("true")
elif words[0] == "rm":
    os.kill(int(words[3]), 15)
"""


def test_without_java_the_machines_container_engine_provides_one_broker(fresh: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    engine = folder / "docker"
    engine.write_text(ENGINE.format(python=sys.executable, seen=str(tmp_path / "seen")))
    engine.chmod(0o755)
    [port] = ports(started_url({**fresh, "PATH": str(folder)}, "kafka", VARIABLE))
    words = json.loads((tmp_path / "seen").read_text())
    assert words[2:4] == ["--publish", f"127.0.0.1:{port}:{port}"]
    assert f"KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:{port}" in words
    assert re.fullmatch(r"apache/kafka:\d+\.\d+\.\d+", words[-1])
    assert services({**fresh, "PATH": str(folder)}, "down").returncode == 0
    assert not listens(port)


@pytest.fixture
def jars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module that fetches, with a cache of this test's own."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setenv("KAMA_SERVICES_CACHE", str(tmp_path / "cache"))
    from servicelib import kafka_jars

    return kafka_jars


# Puts one jar where it is told to; from this user's repository comes what {usual} says, "good" or "broken".
MAVEN = """\
#!/bin/sh
echo "$@" >>"{calls}"
for word; do case "$word" in -DoutputDirectory=*) target="${{word#*=}}" ;; esac; done
case "$*" in *maven.repo.local*) which=good ;; *) which={usual} ;; esac
mkdir -p "$target"
cp "{folder}/$which.jar" "$target/kafka_2.13-0.jar"
"""


class FakeMaven:
    """A Maven for one jar, which writes down how often it was called."""

    def __init__(self, folder: Path, usual: str = "good") -> None:
        self.calls = folder / "calls"
        self.program = folder / "mvn"
        with zipfile.ZipFile(folder / "good.jar", "w") as archive:
            archive.writestr("a.class", "a" * 1000)
        (folder / "broken.jar").write_bytes((folder / "good.jar").read_bytes()[:500])
        self.program.write_text(MAVEN.format(calls=self.calls, usual=usual, folder=folder))
        self.program.chmod(0o755)

    def find(self) -> str:
        return str(self.program)

    def called(self) -> int:
        return len(self.calls.read_text().splitlines())


def test_the_jars_are_fetched_once(jars: ModuleType, tmp_path: Path) -> None:
    maven = FakeMaven(tmp_path)
    assert jars.jars(maven.find) == jars.jars(maven.find) == jars.jars(lambda: None)
    assert maven.called() == 1


@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_a_harmed_jar_is_fetched_again(jars: ModuleType, tmp_path: Path, harm: str) -> None:
    maven = FakeMaven(tmp_path)
    jar = jars.jars(maven.find) / "kafka_2.13-0.jar"
    whole = jar.read_bytes()
    if harm == "gone":
        jar.unlink()
    else:
        jar.write_bytes(whole[:100] if harm == "cut" else whole.replace(b"aaa", b"bbb"))
    jars.jars(maven.find)
    assert jar.read_bytes() == whole
    assert maven.called() == 2


def test_a_broken_jar_in_the_users_repository_is_fetched_past_it(jars: ModuleType, tmp_path: Path) -> None:
    maven = FakeMaven(tmp_path, usual="broken")
    folder = jars.jars(maven.find)
    assert zipfile.is_zipfile(folder / "kafka_2.13-0.jar")
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "lock"}


def test_a_maven_that_fails_leaves_no_half_a_folder(jars: ModuleType, tmp_path: Path) -> None:
    failing = tmp_path / "mvn"
    failing.write_text("#!/bin/sh\necho no route to host\nexit 1\n")
    failing.chmod(0o755)
    with pytest.raises(jars.Missing, match="Maven could not fetch Apache Kafka: no route to host"):
        jars.jars(lambda: str(failing))
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"lock"}


def test_two_at_the_same_time_fetch_once(jars: ModuleType, tmp_path: Path) -> None:
    maven = FakeMaven(tmp_path)
    both = [threading.Thread(target=jars.jars, args=(maven.find,)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert maven.called() == 1


def test_another_list_of_jars_is_fetched_anew(
    jars: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = FakeMaven(tmp_path)
    jars.jars(maven.find)
    changed = tmp_path / "pom.xml"
    changed.write_text(jars.POM.read_text().replace("<log4j.version>", "<log4j.version>0."))
    monkeypatch.setattr(jars, "POM", changed)
    jars.jars(maven.find)
    assert maven.called() == 2
