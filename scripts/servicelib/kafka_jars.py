"""Apache Kafka's jars: fetched with Maven once, kept in a cache that outlives the services."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from servicelib.getting import quiet
from servicelib.processes import say
from servicelib.records import Missing

SCRIPTS = Path(__file__).resolve().parent.parent
POM = SCRIPTS / "kafka" / "pom.xml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
MANIFEST = "manifest.json"


def version() -> str:
    """The version of Kafka that the list of jars names."""
    found = re.search(r"<kafka\.version>(.+)</kafka\.version>", POM.read_text())
    assert found is not None, f"{POM} names no kafka.version"
    return found[1]


def jars(find_maven: Callable[[], str | None]) -> Path | None:
    """The folder with the jars, whole; None: they are not there, and without Maven they cannot be had."""
    cache = Path(os.environ.get("KAMA_SERVICES_CACHE") or SCRIPTS.parent / ".services" / "cache")
    folder = cache / f"kafka-{version()}-libs"
    if _whole(folder):
        return folder
    maven = find_maven()
    if maven is None:
        return None
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _whole(folder):  # nobody else fetched them while we waited
            _fetch(maven, folder)
    return folder


def _fetch(maven: str, folder: Path) -> None:
    say(f"fetching Apache Kafka {version()} with Maven (45 MB, once)")
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder.parent) as draft:
        copied = Path(draft, "libs")
        # Maven uses what an earlier download left in this user's repository, broken or not: if the jars
        # from there are no good, they are fetched anew, into a repository that is used once.
        problem = _copy(maven, copied) and _copy(maven, copied, f"-Dmaven.repo.local={draft}/repository")
        if problem:
            raise Missing(f"Maven could not fetch Apache Kafka: {problem}")
        manifest = {"list": _digest(POM), "jars": {jar.name: _digest(jar) for jar in copied.glob("*.jar")}}
        (copied / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        shutil.rmtree(folder, ignore_errors=True)
        copied.rename(folder)


def _copy(maven: str, folder: Path, *options: str) -> str | None:
    """Have Maven put the jars there; None if they are whole, else what is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    target = (f"-DoutputDirectory={folder}", "-DincludeScope=runtime")
    failure = quiet(maven, "-q", "-B", "--strict-checksums", "-f", str(POM), COPY, *target, *options)
    if failure is not None:
        return failure
    found = list(folder.glob("*.jar"))
    if not any(jar.name.startswith("kafka_") for jar in found):
        return "it brought no Kafka"
    broken = [jar.name for jar in found if not _readable(jar)]
    return f"{broken[0]} is broken" if broken else None


def _readable(jar: Path) -> bool:
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _whole(folder: Path) -> bool:
    """Whether the folder holds what was put there, from the list as it is now."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return bool(manifest["list"] == _digest(POM)) and all(
            _digest(folder / name) == digest for name, digest in manifest["jars"].items()
        )
    except (OSError, ValueError):
        return False


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
