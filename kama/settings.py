"""Settings: what a node is built from. Every one has a default, a unit and a sentence, and `sample.toml` shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from kama.protocol import ISSUER
from kama.units import MAX_DURATION, format_duration, format_size, parse_duration, parse_size

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+|null|\*", re.IGNORECASE)
# As SQLAlchemy reads one: a password may have a slash in it.
_DATABASE = re.compile(
    r"sqlite\+aiosqlite:///(?!:memory:).+"
    r"|postgresql\+asyncpg://(?=.)([^:/]*(:[^@]*)?@)?(\[[^/?]+\]|[^:/?]*)(:(?P<port>\d*))?([/?].*)?"
)
_TOPIC = r"^[A-Za-z0-9._-]+$"
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[^:\s,]+):(?P<port>\d+)")
_REDIS = re.compile(r"(rediss?|unix)://.+")
_PORT_MAX = 65535


def _duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _size(value: object) -> object:
    return parse_size(value) if isinstance(value, str) else value


def _list(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(map(_ORIGIN.fullmatch, values)):
        raise ValueError("expected origins such as https://chat.example.org, without a path or a slash at the end")
    return values


def _has_port(found: re.Match[str] | None) -> bool:
    """Whether it matched, and the port in it, if any, is one."""
    return found is not None and int(found["port"] or 0) <= _PORT_MAX


def _database_url(value: str) -> str:
    # A database in memory keeps nothing, and every connection would see another one.
    if value and not _has_port(_DATABASE.fullmatch(value)):
        raise ValueError("expected sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER@HOST/NAME")
    return value


def _redis_url(value: str) -> str:
    expected = "expected redis://HOST:PORT, rediss://… or unix://…"
    if value and not _REDIS.fullmatch(value):
        raise ValueError(expected)
    try:
        _ = urlsplit(value).port  # it is read when it is asked for
    except ValueError:
        raise ValueError(expected) from None
    return value


def _host_ports(value: str) -> str:
    if not all(_has_port(_HOST_PORT.fullmatch(part.strip())) for part in value.split(",")):
        raise ValueError("expected HOST:PORT, or several separated by commas")
    return value


Seconds = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=MAX_DURATION)]
SecondsOrZero = Annotated[float, BeforeValidator(_duration), Field(ge=0, le=MAX_DURATION)]
Bytes = Annotated[int, BeforeValidator(_size), Field(gt=0, le=1 << 30)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Origins = Annotated[tuple[str, ...], BeforeValidator(_list), AfterValidator(_origins)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: object) -> object:
        """TOML's `true` is no number, though Python takes it for 1."""
        if isinstance(value, bool):
            raise ValueError("expected a number or text")
        return value


class ServerSettings(_Section):
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on")
    port: int = Field(8000, ge=0, le=_PORT_MAX, description="Port to listen on; 0 takes a free one")
    allowed_origins: Origins = Field((), description="Origins of web pages that may connect, besides the node's own")
    drain_timeout: SecondsOrZero = Field(30.0, description="How long a shutdown may take")
    ping_interval: Seconds = Field(25.0, description="Between two pings to a silent client")
    pong_timeout: Seconds = Field(10.0, description="How long a client may take to answer a ping")
    websocket: Literal["auto", "picows", "websockets"] = Field(
        "auto", description="What reads and writes frames; auto: picows, where it is installed"
    )


class AuthSettings(_Section):
    secret: SecretStr | None = Field(None, description="Signs tokens; unset: a random one in the data folder")
    algorithm: Literal["HS256", "HS384", "HS512"] = Field("HS256", description="How tokens are signed")
    issuer: str = Field(ISSUER, min_length=1, description="The claim iss of tokens")
    access_ttl: Seconds = Field(900.0, description="How long a token is good for, where nobody says")
    auth_timeout: Seconds = Field(10.0, description="How long a client without a header may take to send its token")


class LimitSettings(_Section):
    channel_size: Count = Field(100, description="Messages in the transmit queue, and frames in each send-back")
    send_back_max_bytes: Bytes = Field(1 << 20, description="Bytes in each send-back queue")
    message_size: Bytes = Field(65536, description="Bytes of one frame")
    file_max_size: Count = Field(50000, description="Characters of content and av_data of one message")
    connections: Count = Field(10000, description="Connections to this node")
    connections_per_user: Count = Field(8, description="Connections of one user")
    multi_login: Literal["allow", "replace", "reject"] = Field("allow", description="What another login does")
    messages_per_second: float = Field(20.0, ge=0, description="Messages of one user in the long run; 0: no limit")
    burst: Count = Field(60, description="Messages of one user at once")
    publish_timeout: Seconds = Field(5.0, description="How long a sender waits for room before it is told: busy")
    resume_max: Count = Field(300, description="Messages of one conversation that a login pushes; then: pull")


class NodeSettings(_Section):
    id: int | None = Field(
        None, ge=0, le=1023, description="The node's number in message ids; unset: 1, or a free one in kafka mode"
    )
    name: str = Field("", max_length=100, description="The node's name; empty: its host and port")
    mode: Literal["channel", "kafka"] = Field("channel", description="One process, or several nodes over Kafka")


class StoreSettings(_Section):
    url: Annotated[str, AfterValidator(_database_url)] = Field(
        "", description="The database (sqlite+aiosqlite or postgresql+asyncpg); empty: SQLite in the data folder"
    )
    durability: Literal["process", "disk"] = Field(
        "process", description="SQLite: what was acked survives kill -9 (process), and a power cut too (disk)"
    )
    connections: int = Field(8, ge=2, le=1000, description="PostgreSQL: this node's connections, one of which writes")


class RedisSettings(_Section):
    url: Annotated[str, AfterValidator(_redis_url)] = Field(
        "", description="Redis: history cache, and which node has whom; empty: all in this process"
    )


class KafkaSettings(_Section):
    bootstrap_servers: Annotated[str, AfterValidator(_host_ports)] = Field(
        "127.0.0.1:9092", description="Kafka brokers to begin with, separated by commas"
    )
    topic: Annotated[str, Field(pattern=_TOPIC, max_length=100)] = Field(
        "chat_message", description="Topic of accepted messages; <topic>.dlq gets those that cannot be read"
    )
    group: str = Field("chat", min_length=1, max_length=100, description="Consumer group of the nodes that store")
    partitions: int = Field(12, ge=1, le=10_000, description="Partitions of the topic, if a node has to create it")
    replication_factor: int = Field(1, ge=1, le=100, description="Copies of each partition, if a node has to create it")
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = Field(
        "none", description="How batches are compressed"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to talk to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How to log in, where the protocol has SASL in it"
    )
    sasl_username: str = Field("", description="Who logs in")
    sasl_password: SecretStr | None = Field(None, description="The password of who logs in")
    ssl_cafile: str = Field("", description="File with the certificates to trust; empty: the system's")


class CacheSettings(_Section):
    ttl: Seconds = Field(60.0, description="How long an unread conversation stays cached")
    max_messages: Count = Field(200, description="Newest messages of a conversation that are cached")


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged")
    format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else JSON lines")


class Settings(_Section):
    """What a node is built from. Frozen: read once, at the start."""

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    node: NodeSettings = NodeSettings()
    store: StoreSettings = StoreSettings()
    redis: RedisSettings = RedisSettings()
    kafka: KafkaSettings = KafkaSettings()
    cache: CacheSettings = CacheSettings()
    log: LogSettings = LogSettings()


# --- the settings as a list, and as a file -------------------------------------------------------------


@dataclass(frozen=True)
class SettingField:
    """One setting: `limits.burst`, its default as TOML (None: it has none) and its sentence."""

    section: str
    name: str
    default: str | None
    description: str

    @property
    def setting(self) -> str:
        return f"{self.section}.{self.name}"


def setting_fields() -> Iterator[SettingField]:
    """Every setting, in the order of the file."""
    defaults = Settings()
    for section in Settings.model_fields:
        group: BaseModel = getattr(defaults, section)
        for name, info in type(group).model_fields.items():
            units = [item.func for item in info.metadata if isinstance(item, BeforeValidator)]
            yield SettingField(section, name, _as_toml(getattr(group, name), units), info.description or "")


def _as_toml(value: Any, units: list[Any]) -> str | None:
    if value is None:
        return None
    if _duration in units:
        return f'"{format_duration(value)}"'
    if _size in units:
        return f'"{format_size(value)}"'
    # JSON's strings, numbers and arrays are TOML's too.
    return json.dumps(value)


_HEAD = """\
# kama's settings: every one, with its default. Take what you need; what is left out keeps its default.
#
# Read from: --config FILE, KAMA_CONFIG, ./kama.toml, or kama/config.toml in your configuration folder.
# An environment variable wins over this file (limits.burst: KAMA_LIMITS__BURST), a flag over both.
# `kama config show` prints what is in force, and why. Durations: "250ms", "10s", "1h30m". Sizes: "64KiB", "1MB".
"""


def to_toml() -> str:
    """A settings file with every setting at its default."""
    lines = [_HEAD.rstrip()]
    section = ""
    for item in setting_fields():
        if item.section != section:
            section = item.section
            lines += ["", f"[{section}]"]
        lines.append(f"# {item.description}")
        lines.append(f"# {item.name} =" if item.default is None else f"{item.name} = {item.default}")
    return "\n".join(lines) + "\n"
