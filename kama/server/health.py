"""Health for load balancers and supervisors, and metrics: the routes that ask for no token."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from kama.protocol import encode
from kama.server.guard import json_response

if TYPE_CHECKING:
    from kama.server.app import Node

_STORE_TIMEOUT = 2.0


async def live(_request: Request) -> Response:
    """The process turns."""
    return json_response(encode({"status": "live"}))


async def ready(request: Request) -> Response:
    """Whether this node should be sent clients: 503 and why not, otherwise. A cache that is away is no reason."""
    node: Node = request.app.state.node
    checks = {
        "store": await _store(node),
        "broker": await _broker(node),
        "consumer": "ok" if node.chat.is_consuming else "ended",
        "draining": "yes" if node.draining else "ok",
    }
    if node.log is not None:
        checks["log"] = f"not folded: {node.log.trouble}" if node.log.trouble else "ok"
    is_ready = all(state == "ok" for state in checks.values())
    checks["cache"] = "ok" if node.cache.available else "degraded: history comes from the store"
    answer = {"status": "ready" if is_ready else "not ready", "node": node.name, "checks": checks}
    return json_response(encode(answer), 200 if is_ready else 503)


async def _store(node: Node) -> str:
    if node.chat.store_failing:
        return "failing: messages are not being stored"
    try:
        async with asyncio.timeout(_STORE_TIMEOUT):
            await node.database.ping()
    except TimeoutError:
        return f"no answer within {_STORE_TIMEOUT:g} s"
    except Exception as error:
        return f"failing: {type(error).__name__}"
    return "ok"


async def _broker(node: Node) -> str:
    try:
        await node.broker.check()
    except Exception as error:
        return f"failing: {type(error).__name__}"
    return "ok"


async def metrics(request: Request) -> Response:
    node: Node = request.app.state.node
    return Response(generate_latest(node.metrics), media_type=CONTENT_TYPE_LATEST)
