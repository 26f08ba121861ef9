"""The settings themselves: their defaults, their sentences, sample.toml, and what no setting takes."""

import tomllib
from pathlib import Path

import pytest

from kama.config import load_config
from kama.settings import Settings, setting_fields, to_toml
from kama.units import MAX_DURATION

ROOT = Path(__file__).parent.parent


def test_sample_toml_is_what_the_settings_write() -> None:
    assert (ROOT / "sample.toml").read_text(encoding="utf-8") == to_toml()


def test_sample_toml_gives_the_defaults(tmp_path: Path) -> None:
    defaults = load_config(environ={}, data_dir=tmp_path).settings
    assert load_config(file=ROOT / "sample.toml", environ={}, data_dir=tmp_path).settings == defaults


def test_sample_toml_names_every_setting_that_has_a_default() -> None:
    document = tomllib.loads(to_toml())
    written = {f"{section}.{name}" for section, content in document.items() for name in content}
    assert written == {item.setting for item in setting_fields() if item.default is not None}


@pytest.mark.parametrize("setting", [item.setting for item in setting_fields()])
def test_every_setting_has_one_sentence_that_describes_it(setting: str) -> None:
    description = next(item.description for item in setting_fields() if item.setting == setting)
    assert 10 < len(description) < 100
    assert "\n" not in description and not description.endswith(".")


def test_the_defaults_are_those_that_are_promised() -> None:
    settings = Settings()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert (settings.server.drain_timeout, settings.server.ping_interval, settings.server.pong_timeout) == (30, 25, 10)
    assert (settings.auth.secret, settings.auth.algorithm, settings.auth.issuer) == (None, "HS256", "kama_chat")
    assert (settings.auth.access_ttl, settings.auth.auth_timeout) == (900, 10)
    limits = settings.limits
    assert (limits.channel_size, limits.message_size, limits.file_max_size) == (100, 65536, 50000)
    assert (limits.connections, limits.connections_per_user, limits.multi_login) == (10000, 8, "allow")
    assert (limits.messages_per_second, limits.burst, limits.resume_max) == (20, 60, 300)
    assert (settings.node.id, settings.node.mode) == (None, "channel")
    assert (settings.cache.ttl, settings.cache.max_messages) == (60, 200)
    kafka = settings.kafka
    assert (kafka.bootstrap_servers, kafka.topic, kafka.group) == ("127.0.0.1:9092", "chat_message", "chat")
    assert (kafka.partitions, kafka.replication_factor, kafka.security_protocol) == (12, 1, "PLAINTEXT")


def refused(setting: str, value: object) -> str:
    section, _, name = setting.partition(".")
    with pytest.raises(ValueError) as error:
        Settings.model_validate({section: {name: value}})
    return str(error.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("server.port", -1),
        ("server.port", 65536),
        ("server.port", True),
        ("server.port", 80.5),
        ("server.host", ""),
        ("server.drain_timeout", "-1s"),
        ("server.drain_timeout", -1),
        ("server.ping_interval", "0s"),
        ("server.ping_interval", float("nan")),
        ("server.ping_interval", float("inf")),
        ("server.ping_interval", MAX_DURATION + 1),
        ("server.ping_interval", "4000d"),
        ("limits.messages_per_second", float("nan")),
        ("limits.messages_per_second", float("inf")),
        ("limits.messages_per_second", "nan"),
        ("limits.messages_per_second", -0.5),
        ("limits.burst", 0),
        ("limits.burst", False),
        ("limits.connections", 10**30),
        ("limits.message_size", "0B"),
        ("limits.message_size", "999999GiB"),
        ("limits.multi_login", "maybe"),
        ("node.id", 1024),
        ("node.id", -1),
        ("node.name", "x" * 101),
        ("auth.algorithm", "none"),
        ("auth.algorithm", "RS256"),
        ("auth.issuer", ""),
        ("store.url", "sqlite:///x.db"),
        ("store.url", "sqlite+aiosqlite:///:memory:"),
        ("store.url", "mysql://h/d"),
        ("store.url", "postgresql+asyncpg://kama@db:five/kama"),
        ("store.url", "postgresql+asyncpg://kama@db:65536/kama"),
        ("redis.url", "127.0.0.1:6379"),
        ("redis.url", "redis://cache:five"),
        ("redis.url", "redis://cache:65536"),
        ("kafka.bootstrap_servers", "kafka:65536"),
        ("kafka.bootstrap_servers", ""),
        ("kafka.bootstrap_servers", "kafka"),
        ("kafka.bootstrap_servers", "kafka:9092,"),
        ("kafka.bootstrap_servers", "kafka:9092 other:9092"),
        ("kafka.bootstrap_servers", "kafka://kafka:9092"),
        ("kafka.topic", ""),
        ("kafka.topic", "chat message"),
        ("kafka.topic", "chat/message"),
        ("kafka.topic", "x" * 101),
        ("kafka.group", ""),
        ("kafka.partitions", 0),
        ("kafka.partitions", 10_001),
        ("kafka.replication_factor", 0),
        ("kafka.replication_factor", 101),
        ("kafka.compression", "zip"),
        ("kafka.security_protocol", "TLS"),
        ("kafka.sasl_mechanism", "GSSAPI"),
        ("server.allowed_origins", ["https://chat.example.org/"]),
        ("server.allowed_origins", ["chat.example.org"]),
        ("server.allowed_origins", 5),
    ],
)
def test_a_value_that_cannot_work_is_refused(setting: str, value: object) -> None:
    assert setting in refused(setting, value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("store.url", "sqlite+aiosqlite:////var/lib/kama/kama.db"),
        ("store.url", "postgresql+asyncpg://kama@db/kama"),
        ("store.url", "postgresql+asyncpg://kama:p/w:1@[::1]:5432/kama?ssl=require"),
        ("store.url", "postgresql+asyncpg:///kama?host=/run/postgresql"),
        ("redis.url", "rediss://:pw@cache:6379/1"),
        ("redis.url", "unix:///run/redis.sock"),
        ("server.allowed_origins", ("https://chat.example.org", "http://localhost:3000", "null", "*")),
        ("kafka.bootstrap_servers", "kafka-1.example.org:9092, 10.0.0.2:9093,[::1]:9094"),
        ("kafka.topic", "team.chat_message-2"),
        ("kafka.security_protocol", "SASL_SSL"),
        ("server.host", "::1"),
        ("server.port", 0),
        ("server.drain_timeout", 0),
        ("limits.messages_per_second", 0),
    ],
)
def test_a_value_that_works_is_taken_as_it_is(setting: str, value: object) -> None:
    section, _, name = setting.partition(".")
    assert getattr(getattr(Settings.model_validate({section: {name: value}}), section), name) == value


def test_origins_in_one_text_are_split_at_commas() -> None:
    settings = Settings.model_validate({"server": {"allowed_origins": "https://a.example, https://b.example,"}})
    assert settings.server.allowed_origins == ("https://a.example", "https://b.example")


def test_settings_do_not_change_after_they_were_read() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1


def test_a_secret_does_not_show_in_a_printed_settings_object() -> None:
    secrets = {"auth": {"secret": "hunter2"}, "kafka": {"sasl_password": "hunter2"}}
    assert "hunter2" not in repr(Settings.model_validate(secrets))
