"""KafkaConnection: what every client of the brokers is made with, and how it starts or says why it cannot."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from kama.errors import CannotConnect, SettingsError
from kama.settings import KafkaSettings

log = structlog.get_logger("kama.kafka")


class KafkaConnection:
    """`node` names its clients in the brokers' logs and groups."""

    def __init__(self, settings: KafkaSettings, node: str) -> None:
        self.client_id = f"kama-{node}"
        self._settings = settings

    def options(self) -> dict[str, Any]:
        """Arguments of every client. Raises SettingsError for certificates that cannot be read."""
        given = self._settings
        options: dict[str, Any] = {
            "bootstrap_servers": [server.strip() for server in given.bootstrap_servers.split(",")],
            "client_id": self.client_id,
            "security_protocol": given.security_protocol,
            "metadata_max_age_ms": 30_000,
        }
        if given.security_protocol.startswith("SASL"):
            password = given.sasl_password.get_secret_value() if given.sasl_password else ""
            options |= {
                "sasl_mechanism": given.sasl_mechanism,
                "sasl_plain_username": given.sasl_username,
                "sasl_plain_password": password,
            }
        if given.security_protocol.endswith("SSL"):
            try:
                options["ssl_context"] = ssl.create_default_context(cafile=given.ssl_cafile or None)
            except OSError as error:  # no such file, or no certificates in it
                raise SettingsError(f"cannot use {given.ssl_cafile}: {error}", field="kafka.ssl_cafile") from None
        return options

    async def started_producer(self) -> AIOKafkaProducer:
        """Idempotent, and acknowledged by all replicas in sync. Raises CannotConnect."""
        compression = None if self._settings.compression == "none" else self._settings.compression
        producer = AIOKafkaProducer(
            acks="all", enable_idempotence=True, compression_type=compression, linger_ms=0, **self.options()
        )
        await self.started(producer)
        return producer

    def consumer(self, **options: Any) -> AIOKafkaConsumer:
        """Not started yet. What it has read is committed by hand."""
        return AIOKafkaConsumer(enable_auto_commit=False, **self.options(), **options)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """Raises CannotConnect, also for what Kafka answers within."""
        admin = AIOKafkaAdminClient(**self.options())
        await self.started(admin)
        try:
            yield admin
        except (KafkaError, OSError) as error:
            raise self._cannot_connect(error) from None
        finally:
            await admin.close()

    async def started(self, client: AIOKafkaAdminClient | AIOKafkaConsumer | AIOKafkaProducer) -> None:
        """Start a client, or end what of it had started. Raises CannotConnect."""
        try:
            await client.start()
        except BaseException as error:
            await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())
            if isinstance(error, KafkaError | OSError):
                raise self._cannot_connect(error) from None
            raise

    async def ended(self, client: AIOKafkaConsumer | AIOKafkaProducer, timeout: float) -> None:
        """Within `timeout` seconds, or as it is."""
        try:
            async with asyncio.timeout(timeout):
                await client.stop()
        except (KafkaError, TimeoutError) as error:
            log.warning("Kafka client did not end cleanly", error=repr(error))

    def _cannot_connect(self, error: object) -> CannotConnect:
        servers = self._settings.bootstrap_servers
        return CannotConnect(
            f"no Kafka broker answers at {servers} (kafka.bootstrap_servers): {error}",
            hint="start one: scripts/services up kafka, or name another: KAMA_KAFKA__BOOTSTRAP_SERVERS",
        )
