"""Structured logs on stderr: text for a terminal, one JSON object a line otherwise. Never a payload or a token."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from kama.server.outages import KAFKA_IS_AWAY, OutageFilter

LogFormat = Literal["auto", "text", "json"]
_QUIET = ("aiokafka", "uvicorn.error", "uvicorn.access", "aiosqlite", "sqlalchemy", "alembic", "asyncio", "websockets")


def configure_logs(level: str, style: LogFormat = "auto") -> None:
    """Our loggers and the libraries' alike. Libraries speak from warning on: uvicorn logs whole URLs at info."""
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if as_text:
        # Not structlog's own choice: with rich at hand it prints every local variable, tokens and payloads among them.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        extra: list[structlog.typing.Processor] = []
    else:
        renderer = structlog.processors.JSONRenderer()
        extra = [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *extra, renderer],
        )
    )
    handler.addFilter(OutageFilter("aiokafka", KAFKA_IS_AWAY))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(max(number, logging.WARNING))
