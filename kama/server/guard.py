"""The guard of every route: who asks, from where, and whether they may; and every answer in the envelope."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from kama.errors import (
    BadParameter,
    Code,
    DatabaseFailed,
    Forbidden,
    KamaError,
    RateLimited,
    TooLarge,
    TooSlow,
    Unauthorised,
)
from kama.protocol import envelope, error_envelope
from kama.refusals import explain
from kama.server.auth import Identity, Role

if TYPE_CHECKING:
    from kama.server.app import Node

log = structlog.get_logger("kama.http")

Handler = Callable[["Node", Identity, Request], Awaitable[Any]]
_MAX_BODY = 1 << 20
BODY_PATIENCE = 30.0  # seconds
_STATUS_CODES = {404: Code.NOT_FOUND, 403: Code.FORBIDDEN, 401: Code.UNAUTHORISED, 429: Code.RATE_LIMITED}


def guarded(handler: Handler, *roles: Role) -> Callable[[Request], Awaitable[Response]]:
    """A route's endpoint: verifies the token, asks for one of `roles` (none: any), wraps what comes back."""

    async def endpoint(request: Request) -> Response:
        node: Node = request.app.state.node
        identity = node.tokens.verify(bearer_token(request))
        if roles and identity.role not in roles:
            raise Forbidden(f"expected the role {' or '.join(roles)}, got {identity.role}")
        return json_response(envelope(await handler(node, identity, request)))

    endpoint.guarded_roles = roles  # type: ignore[attr-defined]
    return endpoint


def bearer_token(connection: HTTPConnection) -> str:
    """Raises Unauthorised when the header is missing or of another kind."""
    header = connection.headers.get("authorization")
    if header is None:
        raise Unauthorised("expected the header Authorization: Bearer <token>, got none")
    kind, _, token = header.partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Unauthorised("expected the header Authorization: Bearer <token>, got another kind")
    return token.strip()


def check_origin(connection: HTTPConnection, allowed: Iterable[str]) -> None:
    """Browsers say where a page came from, and CORS does not cover WebSockets: others' pages stay out."""
    origin = connection.headers.get("origin")
    if origin is None:
        return
    # Not taken apart as a URL: what is none would raise.
    own = origin.partition("://")[2] == connection.headers.get("host")
    if not own and origin not in allowed and "*" not in allowed:
        raise Forbidden(f"the origin {origin[:100]!r} is neither this node's own nor in server.allowed_origins")


async def read_body(request: Request, kind: type[Any]) -> Any:
    """The body as one msgspec type. Raises TooLarge, TooSlow, or BadParameter that names the field."""
    return decode_body(await read_bytes(request), kind)


async def read_bytes(request: Request, limit: int = _MAX_BODY) -> bytes:
    """Raises TooLarge and TooSlow."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"expected a body of at most {limit} bytes, got more")
                chunks.append(chunk)
    except TimeoutError:
        raise TooSlow(f"expected the whole body within {BODY_PATIENCE:g} s, got {size} bytes") from None
    return b"".join(chunks)


def decode_body(data: bytes, kind: type[Any]) -> Any:
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.ValidationError as error:
            # The decoder stops at the first wrong field: what comes after it need not even be JSON.
            raise explain(error, msgspec.json.decode(data)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadParameter(f"expected one JSON object in UTF-8: {error}") from None


def json_response(content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")


def error_response(error: KamaError) -> Response:
    headers: dict[str, str] = {}
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    elif error.retriable:
        headers["Retry-After"] = "1"
    if isinstance(error, Unauthorised):
        headers["WWW-Authenticate"] = "Bearer"
    return json_response(error_envelope(error.code, error_text(error)), error.http_status, headers)


def error_text(error: KamaError) -> str:
    """For answers without a place for the field."""
    if error.field is None or error.field in error.message:
        return error.message
    return f"{error.field}: {error.message}"


async def on_kama_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, KamaError)
    return error_response(error)


async def on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _STATUS_CODES.get(error.status_code, Code.BAD_PARAMETER)
    headers = dict(error.headers or {})
    return json_response(error_envelope(code, error.detail), error.status_code, headers)


async def on_store_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SQLAlchemyError | OSError)
    log.warning("store failed while a request was handled", path=request.url.path, error=repr(error))
    return error_response(DatabaseFailed("the store does not answer: try again later"))


async def on_client_gone(_request: Request, _error: Exception) -> Response:
    """It left before its body was whole: nobody reads this."""
    return Response(status_code=400)


async def on_fault(_request: Request, _error: Exception) -> Response:
    """Our own fault: the traceback is in the log, and no word of it in the answer."""
    return json_response(error_envelope(Code.BUSY, "the node failed to answer: its log says why"), 500)


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    KamaError: on_kama_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_client_gone,
    SQLAlchemyError: on_store_error,
    OSError: on_store_error,  # a refused connection, which SQLAlchemy lets pass as it is
    Exception: on_fault,
}
