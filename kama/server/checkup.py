"""Checkup: what a node needs, tried without starting one. Each finding names the setting that mends it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from kama.server.kafka.connection import KafkaConnection
from kama.settings import Settings

_TIMEOUT = 5.0
_CLOCKS_APART_MS = 1000
_TIME = "message.timestamp.type"


class Finding(Struct):
    """`ok` is None for what is worth knowing and no fault. `hint` names what would mend it."""

    what: str
    ok: bool | None
    found: str
    hint: str | None = None


async def check_up(settings: Settings) -> list[Finding]:
    """All that the settings' mode needs, within seconds."""
    checks: list[tuple[str, str, Callable[[Settings], Awaitable[list[Finding]]]]] = [("database", "store.url", _store)]
    if settings.redis.url:
        checks.append(("redis", "redis.url", _redis))
    if settings.node.mode == "kafka":
        checks.append(("kafka", "kafka.bootstrap_servers", _kafka))
    found: list[Finding] = []
    for what, setting, check in checks:
        try:
            async with asyncio.timeout(_TIMEOUT):
                found += await check(settings)
        except TimeoutError:
            found.append(Finding(what, False, f"no answer within {_TIMEOUT:g} s", f"look at {setting}"))
        except (SQLAlchemyError, RedisError, KafkaError, OSError, ImportError) as error:
            reason = str(getattr(error, "orig", None) or error) or type(error).__name__
            found.append(Finding(what, False, reason.splitlines()[0], f"start it, or look at {setting}"))
    if settings.node.mode == "kafka":
        found += _company(settings)
    return found


async def _store(settings: Settings) -> list[Finding]:
    url = make_url(settings.store.url)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and not (file := Path(url.database or "")).exists():
        return [_place_for(file)]
    engine = create_async_engine(url, hide_parameters=True)
    try:
        async with engine.connect() as connection:
            if is_sqlite:
                await connection.execute(text("PRAGMA schema_version"))  # this reads the file; SELECT 1 would not
                return [Finding("database", True, "SQLite answers")]
            at = await connection.scalar(text("SELECT extract(epoch FROM clock_timestamp()) * 1000"))
        return [Finding("database", True, "PostgreSQL answers"), _clock("the database's clock", float(at or 0))]
    finally:
        await engine.dispose()


def _place_for(file: Path) -> Finding:
    """Whether a node can make its database there, and the folders on the way to it."""
    there = next(folder for folder in file.absolute().parents if folder.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Finding("database", None, f"no {file} yet: the node creates it")
    why = "cannot be written to" if there.is_dir() else "is a file"
    return Finding("database", False, f"no {file}, and {there} {why}", "look at store.url and the data folder")


async def _redis(settings: Settings) -> list[Finding]:
    async with Redis.from_url(settings.redis.url, socket_connect_timeout=2, socket_timeout=2) as redis:
        seconds, micros = await redis.time()
        info: Any = await redis.info("server")
    return [
        Finding("redis", True, f"Redis {info.get('redis_version', '?')} answers"),
        _clock("Redis' clock", seconds * 1000 + micros / 1000),
    ]


def _clock(what: str, at_ms: float) -> Finding:
    apart = at_ms - time.time() * 1000
    ok = abs(apart) < _CLOCKS_APART_MS
    return Finding(what, ok, f"{apart:+.0f} ms from this one's", None if ok else "set the clocks by NTP")


async def _kafka(settings: Settings) -> list[Finding]:
    kafka = settings.kafka
    options = KafkaConnection(kafka, "check").options()
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        topics = {topic["topic"]: topic for topic in await admin.describe_topics([kafka.topic])}
        (asked,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.topic, {_TIME: ""})])
        groups = await admin.list_consumer_groups()
    finally:
        await admin.close()
    enough = brokers >= kafka.replication_factor
    return [
        Finding("kafka", True, f"{brokers} broker{'s' * (brokers != 1)} answer{'s' * (brokers == 1)}"),
        Finding(
            "replication",
            enough,
            f"kafka.replication_factor is {kafka.replication_factor} of {brokers}",
            None if enough else "start more brokers, or lower kafka.replication_factor",
        ),
        _topic(settings, topics.get(kafka.topic)),
        *_times(kafka.topic, asked.resources),
        Finding("group", None, f"{kafka.group} {'exists' if kafka.group in dict(groups) else 'is new'}"),
    ]


def _topic(settings: Settings, topic: dict[str, Any] | None) -> Finding:
    kafka = settings.kafka
    if topic is None or topic["error_code"]:
        return Finding("topic", None, f"{kafka.topic} is not there yet: the first node creates it")
    partitions = topic["partitions"]
    copies = min((len(partition["replicas"]) for partition in partitions), default=0)
    found = f"{kafka.topic} has {len(partitions)} partitions in {copies} copies"
    same = len(partitions) == kafka.partitions and copies == kafka.replication_factor
    return Finding("topic", True if same else None, found, None if same else "kafka.partitions and replication differ")


def _times(topic: str, resources: Sequence[Any]) -> list[Finding]:
    """Of a topic that somebody else created; none of one that is not there."""
    by_producers = any(entry[:2] == (_TIME, "CreateTime") for resource in resources for entry in resource[4])
    hint = f"set {_TIME}=LogAppendTime for {topic}, as nodes do for a topic that they create"
    return [Finding("times", None, "foreign producers' clocks time their messages", hint)] if by_producers else []


def _company(settings: Settings) -> list[Finding]:
    """What several nodes need of each other."""
    found = []
    if not settings.redis.url:
        found.append(Finding("several nodes", None, "no redis.url: one node only", "set redis.url for more"))
    if settings.redis.url and settings.store.url.startswith("sqlite"):
        hint = "set store.url to a PostgreSQL database that all nodes share"
        found.append(Finding("several nodes", False, "SQLite is one node's own", hint))
    return found
