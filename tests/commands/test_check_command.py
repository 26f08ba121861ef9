"""`kama check`: what is there, what is missing, and which setting mends it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from command_line import Kama


def test_with_no_settings_at_all_everything_is_there(kama: Kama) -> None:
    done = kama("check", "--json")
    assert (done.code, done.json["ok"]) == (0, True)
    assert [check["what"] for check in done.json["checks"]] == ["secret", "database"]


def test_what_does_not_answer_is_named_with_its_setting(kama: Kama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_REDIS__URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("KAMA_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    done = kama("check", "--mode", "kafka", "--json")
    failed = {check["what"]: check for check in done.json["checks"] if check["ok"] is False}
    assert done.code == 1
    assert "redis.url" in failed["redis"]["hint"]
    assert "kafka.bootstrap_servers" in failed["kafka"]["hint"]
    assert "store.url" in failed["several nodes"]["hint"]


def test_what_does_not_answer_is_told_once() -> None:
    environment = {**os.environ, "KAMA_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    command = [sys.executable, "-m", "kama", "check", "--mode", "kafka"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (1, "") and "FAILED  kafka" in done.stdout


def test_a_file_that_is_no_database_fails(kama: Kama, tmp_path: Path) -> None:
    (tmp_path / "kama.db").write_bytes(b"something else, " * 64)
    done = kama("check", "--json", "--data-dir", str(tmp_path))
    assert (done.code, done.json["ok"]) == (1, False)
    assert done.json["checks"][1]["found"] == "file is not a database"


def test_a_data_folder_that_cannot_be_made_fails(kama: Kama, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = kama("check", "--json", "--data-dir", str(tmp_path / "file" / "data"))
    assert (done.code, done.json["ok"]) == (1, False)
    assert f"{tmp_path / 'file'} is a file" in done.json["checks"][1]["found"]


def test_a_password_is_not_printed(kama: Kama, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAMA_STORE__URL", "postgresql+asyncpg://u:hunter2@127.0.0.1:1/d")
    done = kama("check")
    assert done.code == 1
    assert "hunter2" not in done.out + done.err


def test_a_secret_that_others_can_read_fails(kama: Kama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    secret.chmod(0o644)
    monkeypatch.setenv("KAMA_DATA_DIR", str(tmp_path))
    done = kama("check", "--json")
    assert done.code == 1
    assert done.json["checks"][0]["what"] == "secret" and "chmod 600" in done.json["checks"][0]["hint"]


@pytest.mark.kafka
def test_a_cluster_that_is_there_passes(
    kama: Kama, monkeypatch: pytest.MonkeyPatch, redis_url: str, postgres_url: str, kafka_servers: str
) -> None:
    monkeypatch.setenv("KAMA_REDIS__URL", redis_url)
    monkeypatch.setenv("KAMA_STORE__URL", postgres_url)
    monkeypatch.setenv("KAMA_KAFKA__BOOTSTRAP_SERVERS", kafka_servers)
    monkeypatch.setenv("KAMA_KAFKA__TOPIC", f"new-{os.getpid()}")
    done = kama("check", "--mode", "kafka", "--json")
    assert (done.code, done.err) == (0, "")
    found = {check["what"]: check["found"] for check in done.json["checks"]}
    assert found["topic"].endswith("is not there yet: the first node creates it")
    assert found["kafka"].endswith("answers") or found["kafka"].endswith("answer")


@pytest.mark.kafka
@pytest.mark.parametrize(("timed_by", "told"), [("CreateTime", True), ("LogAppendTime", False)])
async def test_a_topic_that_producers_time_is_told(
    kama: Kama, monkeypatch: pytest.MonkeyPatch, kafka_servers: str, timed_by: str, told: bool
) -> None:
    topic = f"timed-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 12, 1, topic_configs={"message.timestamp.type": timed_by})])
    monkeypatch.setenv("KAMA_KAFKA__BOOTSTRAP_SERVERS", kafka_servers)
    monkeypatch.setenv("KAMA_KAFKA__TOPIC", topic)
    try:
        done = await asyncio.to_thread(kama, "check", "--mode", "kafka", "--json")
    finally:
        await admin.delete_topics([topic])
        await admin.close()
    hints = [check["hint"] for check in done.json["checks"] if check["what"] == "times"]
    assert [f"message.timestamp.type=LogAppendTime for {topic}" in hint for hint in hints] == [True] * told
