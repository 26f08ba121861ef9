"""Which of several parts a node has: that is for its settings to say."""

from __future__ import annotations

from kama.errors import SettingsError
from kama.server.broker import MessageBroker
from kama.server.cache import CacheBackend, MemoryBackend
from kama.server.channel_broker import ChannelBroker
from kama.server.events import Journal
from kama.server.kafka.records import NODES
from kama.server.store.database import Database
from kama.server.store.logged import LoggedDatabase
from kama.server.store.logged_messages import LoggedMessages
from kama.server.store.logged_progress import LoggedProgress
from kama.server.store.messages import MessageStore
from kama.server.store.progress import ProgressStore
from kama.settings import Settings


def make_stores(settings: Settings) -> tuple[LoggedDatabase | None, Database, MessageStore, ProgressStore]:
    """A node alone with its SQLite logs what it accepts, and has the database follow. Elsewhere Kafka is the log, or
    others may write to the same database."""
    if not settings.store.url.startswith("sqlite"):
        database = Database(settings.store.url, connections=settings.store.connections)
        return None, database, MessageStore(database), ProgressStore(database)
    logged = LoggedDatabase(settings.store.url, settings.store.durability)
    if settings.node.mode == "kafka":
        # What it may have logged alone before is folded when it opens; from then on its log stays empty.
        return None, logged, MessageStore(logged), ProgressStore(logged)
    return logged, logged, LoggedMessages(logged), LoggedProgress(logged)


def make_broker(settings: Settings, name: str, journal: Journal) -> MessageBroker:
    size = settings.limits.channel_size
    if settings.node.mode == "channel":
        return ChannelBroker(size)
    if (settings.node.id or 0) >= NODES:
        raise SettingsError(
            f"expected node.id to be less than {NODES} in kafka mode, got {settings.node.id}: the others stand for "
            "what foreign producers post",
            field="node.id",
        )
    from kama.server.kafka_broker import KafkaBroker  # aiokafka is slow to import, and most nodes have no Kafka

    return KafkaBroker(
        settings.kafka, node=name, in_flight=size, alone=not settings.redis.url, produced=journal.produced
    )


def make_cache_backend(settings: Settings) -> CacheBackend:
    ttl, size = settings.cache.ttl, settings.cache.max_messages
    if not settings.redis.url:
        return MemoryBackend(ttl, size)
    from kama.server.cache_redis import RedisBackend  # redis is slow to import, and most nodes have none

    return RedisBackend(settings.redis.url, ttl, size)
