"""An Apache Kafka of our own: one broker, or a cluster of three that bears the loss of any one.

KRaft mode, each broker a controller as well, all on loopback, with little memory.
"""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from servicelib import kafka_jars
from servicelib.getting import docker_answers, docker_run, program
from servicelib.processes import connect, free_ports, receive
from servicelib.records import Launch, Missing, Started
from servicelib.servers import LOG, bring_up, last_words, launch, new_folder

SECONDS = 60.0
OLDEST_JAVA = 17
JAVA_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless", "default-jre-headless")
# Quick to start and small, at some cost in speed under load; its crash reports go to the broker's folder.
JAVA_OPTIONS = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
LOGGING = kafka_jars.SCRIPTS / "kafka" / "log4j2.properties"

# Sizes for a few topics and clients, in place of a data centre's.
SMALL = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.cleaner.io.buffer.size": "65536",
    "num.network.threads": "2",
    "num.io.threads": "4",
}


def start(home: Path, count: int) -> list[Started]:
    """Start the brokers, `kafka-1` and on, and wait until each knows all of them."""
    java = _java()
    libs = kafka_jars.jars(lambda: program("mvn", "maven")) if java is not None else None
    if java is not None and libs is not None:
        return bring_up(home, lambda: _cluster(java, libs, home, count), lambda one: _complete(one, count), SECONDS)
    if count == 1 and docker_answers():
        return bring_up(home, lambda: {"kafka-1": _container(home / "kafka-1")}, ready, SECONDS)
    raise Missing(
        f"Apache Kafka needs Java {OLDEST_JAVA} or newer and Maven, apt-get could not bring them (it needs root), and "
        "for one broker a Docker engine would do: install them, or set KAMA_TEST_KAFKA_BOOTSTRAP_SERVERS to brokers "
        "that may be filled"
    )


def _java() -> str | None:
    java = program("java", *JAVA_PACKAGES)
    if java is None:
        return None
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', shown)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise Missing(
            f"Apache Kafka needs Java {OLDEST_JAVA} or newer, and {java} is {version[1] if version else shown}"
        )
    return java


def ready(started: Started) -> bool:
    """Whether the broker is in the cluster again: one that is still catching up does not name itself."""
    return started.port in _members(started.port)


def _complete(started: Started, count: int) -> bool:
    return len(_members(started.port)) == count


def _members(port: int) -> list[int]:
    """The ports of the brokers that can take partitions, as the broker on this port knows them."""
    # Metadata, version 1, of no topics.
    request = struct.pack(">hhih4si", 3, 1, 1, 4, b"kama", 0)
    try:
        with connect(port) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            [size] = struct.unpack(">i", receive(connection, 4))
            return _ports_in(receive(connection, size))
    except OSError:
        return []


def _ports_in(answer: bytes) -> list[int]:
    """The brokers' ports: after two numbers (request, how many), each is node, host, port and rack."""
    ports = []
    [count] = struct.unpack_from(">i", answer, 4)
    at = 8
    for _ in range(count):
        [host] = struct.unpack_from(">h", answer, at + 4)
        port, rack = struct.unpack_from(">ih", answer, at + 6 + host)
        ports.append(port)
        at += 12 + host + max(rack, 0)
    return ports


def _cluster(java: str, libs: Path, home: Path, count: int) -> dict[str, Started]:
    """Format the brokers' folders, and start them."""
    names = [f"kafka-{number}" for number in range(1, count + 1)]
    ports = free_ports(2 * count)
    brokers, controllers = ports[:count], ports[count:]
    for node, name in enumerate(names, start=1):
        own = _properties(node, brokers, controllers, new_folder(home / name) / "data")
        (home / name / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in own.items()))
    run = (java, *JAVA_OPTIONS, "-Djava.net.preferIPv4Stack=true", f"-Dlog4j2.configurationFile={LOGGING}")
    run += ("-cp", f"{libs}/*")  # Java itself reads this as all the jars
    _format(run, [home / name for name in names], controllers)
    return {
        name: launch(
            home / name,
            # Without its data there is nothing to hand over, and no reason to wait for that.
            Launch((*run, "kafka.Kafka", "server.properties"), cwd=str(home / name), discard="SIGKILL"),
            Started(url=f"127.0.0.1:{port}", port=port),
        )
        for name, port in zip(names, brokers, strict=True)
    }


def _format(run: tuple[str, ...], folders: list[Path], controllers: list[int]) -> None:
    """Make the data folders, all at the same time: each takes a Java of its own."""
    voters = ",".join(f"{node}@127.0.0.1:{port}:{_id()}" for node, port in enumerate(controllers, start=1))
    command = (*run, "kafka.tools.StorageTool", "format", "--cluster-id", _id(), "--initial-controllers", voters)
    making = []
    for folder in folders:
        with (folder / LOG).open("ab") as log:
            making.append(subprocess.Popen([*command, "-c", "server.properties"], stdout=log, stderr=log, cwd=folder))
    for folder, code in [(folder, process.wait()) for folder, process in zip(folders, making, strict=True)]:
        if code != 0:
            raise Missing(f"kafka.tools.StorageTool failed: {last_words(folder)}")


def _id() -> str:
    """A new id in the form that Kafka's tools read: they take one that begins with a dash for an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _properties(node: int, brokers: list[int], controllers: list[int], data: Path) -> dict[str, str]:
    broker, controller = brokers[node - 1], controllers[node - 1]
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in controllers),
        "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        **_copies(len(brokers)),
        **SMALL,
    }


def _copies(count: int) -> Mapping[str, str]:
    """As many copies as there are brokers; a write needs all but one of them."""
    copies, enough = str(count), str(max(1, count - 1))
    internal = ("transaction.state.log", "share.coordinator.state.topic")
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": copies,
        **{f"{topic}.replication.factor": copies for topic in internal},
        **{f"{topic}.min.isr": enough for topic in internal},
    }


def _container(folder: Path) -> Started:
    """One broker from the project's own image, which takes every property as a variable."""
    new_folder(folder)
    broker, controller = free_ports(2)
    properties = _properties(1, [broker], [controller], Path("/tmp/kafka-data"))
    # The same port inside, as the broker also calls itself by the address that it tells the clients.
    properties["listeners"] = f"PLAINTEXT://0.0.0.0:{broker},CONTROLLER://127.0.0.1:{controller}"
    del properties["controller.quorum.bootstrap.servers"]  # the image formats for a fixed set of voters
    properties["controller.quorum.voters"] = f"1@127.0.0.1:{controller}"
    environment = {f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in properties.items()}
    started = Started(url=f"127.0.0.1:{broker}", port=broker)
    image = f"apache/kafka:{kafka_jars.version()}"
    return docker_run(folder, started, image, f"{broker}:{broker}", environment=environment)
