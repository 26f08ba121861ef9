"""The routes of clients: log in, log out, post a message, read history. Decode, call, answer."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from kama.errors import BadParameter, CloseCode, Forbidden, KamaError, NoSuchGroup, NotFound, Unauthorised
from kama.protocol import (
    HISTORY_LIMIT,
    HISTORY_LIMIT_MAX,
    AuthFrame,
    conversation_id,
    decode_frame,
    decode_request,
    error_frame,
    is_group_id,
    is_user_id,
)
from kama.server.auth import Identity
from kama.server.guard import bearer_token, check_origin, error_response, read_body, read_bytes
from kama.server.peers import Closed
from kama.server.transport.socket_reader import SocketReader
from kama.server.websocket import Socket, socket_of

if TYPE_CHECKING:
    from kama.server.app import Node

_DEVICE_MAX = 64


# --- log in --------------------------------------------------------------------------------------------


async def ws_login(websocket: WebSocket) -> None:
    """`GET /wss?client_id=U…[&device=…][&post_only=1]`: one connection of one user, until either side ends it."""
    node: Node = websocket.app.state.node
    try:
        client_id, device, post_only = _login_parameters(websocket)
        node.check_open()
        check_origin(websocket, node.settings.server.allowed_origins)
        token, subprotocol = find_token(websocket)
        identity = _own(node.tokens.verify(token), client_id) if token else None
        node.registry.check(client_id, post_only=post_only)
        if identity is not None:
            await node.directory.check(client_id, post_only=post_only)
    except KamaError as error:
        _note_refusal(node, websocket.query_params.get("client_id", ""), error)
        await websocket.send_denial_response(error_response(error))
        return
    await websocket.accept(subprotocol)
    socket, address = socket_of(websocket), _address(websocket)
    socket.hand_over(lambda: _connect(node, socket, identity, client_id, device, address, post_only))


async def _connect(
    node: Node, socket: Socket, identity: Identity | None, client_id: str, device: str, address: str, post_only: bool
) -> None:
    try:
        if identity is None:
            identity = await _first_frame(node, socket, client_id)
        conn = node.new_conn(socket, identity, device=device, address=address, post_only=post_only)
        await node.sessions.connect(conn)
    except KamaError as error:
        _note_refusal(node, client_id, error)
        socket.write_frames([error_frame(error)])
        code = CloseCode.GOING_AWAY if error.retriable else CloseCode.FORBIDDEN
        socket.close_now(code, error.message[:100])


def _note_refusal(node: Node, client_id: str, error: KamaError) -> None:
    node.journal.traffic.logins_refused += 1
    node.journal.refused(client_id if is_user_id(client_id) else "", "", error.code, f"login: {error.message}")


def _login_parameters(websocket: WebSocket) -> tuple[str, str, bool]:
    query = dict(parse_qsl(websocket.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    client_id, device = query.get("client_id", ""), query.get("device", "")
    if not is_user_id(client_id):
        raise BadParameter(f"expected client_id=U…, got {client_id[:24]!r}", field="client_id")
    if len(device) > _DEVICE_MAX or not device.isprintable():
        raise BadParameter(f"expected a device of at most {_DEVICE_MAX} printable characters", field="device")
    return client_id, device, query.get("post_only", "") in ("1", "true")


def find_token(websocket: WebSocket) -> tuple[str | None, str | None]:
    """The token and the subprotocol to answer with: from the header, from ["bearer", token], or still to come."""
    if "authorization" in websocket.headers:
        return bearer_token(websocket), None
    offered: list[str] = websocket.scope.get("subprotocols", [])
    if offered and offered[0] == "bearer":
        if len(offered) != 2:
            raise Unauthorised('expected the subprotocols ["bearer", "<token>"], got another number of them')
        return offered[1], "bearer"
    return None, None


def _own(identity: Identity, client_id: str) -> Identity:
    if not identity.may_act_for(client_id):
        raise Forbidden(f"expected client_id {identity.user_id}, the token's user, got {client_id}")
    return identity.acting_as(client_id)


async def _first_frame(node: Node, socket: Socket, client_id: str) -> Identity:
    """For clients that can set neither header nor subprotocol: the token comes as the first frame."""
    timeout, reader = node.settings.auth.auth_timeout, SocketReader(socket)
    node.registry.pending += 1
    try:
        async with asyncio.timeout(timeout):
            data = await reader.receive_frame()
    except TimeoutError:
        raise Unauthorised(f'expected {{"type":"auth","token":"…"}} within {timeout:g} s, got nothing') from None
    finally:
        node.registry.pending -= 1
    frame = decode_frame(data) if data is not None else None
    if not isinstance(frame, AuthFrame):
        raise Unauthorised('expected {"type":"auth","token":"…"} as the first frame, got another')
    return _own(node.tokens.verify(frame.token), client_id)


def _address(websocket: WebSocket) -> str:
    client: tuple[str, int] | None = websocket.scope["client"]
    return f"{client[0]}:{client[1]}" if client else ""


def new_conn_id() -> str:
    return secrets.token_hex(6)


async def ws_not_found(websocket: WebSocket) -> None:
    error = NotFound(f"there is no WebSocket at {websocket.url.path[:100]}: log in at /wss?client_id=U…")
    await websocket.send_denial_response(error_response(error))


async def http_on_wss(_request: Request) -> Response:
    error = BadParameter("expected a WebSocket upgrade, got a plain HTTP request")
    response = error_response(error)
    response.status_code = 426
    response.headers["Upgrade"] = "websocket"
    return response


# --- log out, post, read -------------------------------------------------------------------------------


class LogoutBody(Struct):
    owner_id: str


async def ws_logout(node: Node, identity: Identity, request: Request) -> None:
    """Closes all connections of a user; success also when there is none."""
    body: LogoutBody = await read_body(request, LogoutBody)
    if not identity.may_act_for(body.owner_id):
        raise Forbidden(f"expected owner_id {identity.user_id}, the token's user, got another")
    await node.peers.close_user(Closed(body.owner_id, CloseCode.NORMAL, "logout"))


async def send_message(node: Node, identity: Identity, request: Request) -> dict[str, Any]:
    """One message without a socket; answers its ack."""
    node.check_open()
    message = decode_request(await read_bytes(request, node.settings.limits.message_size))
    stored = await node.chat.accept_and_wait(message, identity)
    answer = {
        "uuid": str(stored.uuid),
        "conversation": stored.conversation,
        "seq": stored.seq or None,  # given by whichever node stores it, or none for a call signal that is not stored
        "status": "accepted",
    }
    if message.client_msg_id is not None:
        answer["client_msg_id"] = message.client_msg_id
    return answer


async def pair_history(node: Node, identity: Identity, request: Request) -> Any:
    """1:1 history, oldest first, for one of the two."""
    one, two = request.query_params.get("userOneId", ""), request.query_params.get("userTwoId", "")
    for name, value in (("userOneId", one), ("userTwoId", two)):
        if not is_user_id(value):
            raise BadParameter(f"expected {name}=U…, got {value[:24]!r}", field=name)
    if not (identity.may_act_for(one) or identity.may_act_for(two)):
        raise Forbidden(f"{identity.user_id} is neither {one} nor {two}")
    return await node.history.read(conversation_id(one, two), **_paging(request))


async def group_history(node: Node, identity: Identity, request: Request) -> Any:
    """Group history, oldest first, for a member."""
    group_id = request.query_params.get("groupId", "")
    if not is_group_id(group_id):
        raise BadParameter(f"expected groupId=G…, got {group_id[:24]!r}", field="groupId")
    members = await node.membership.members(group_id)
    if members is None:
        raise NoSuchGroup(f"there is no group {group_id}")
    if identity.user_id not in members and identity.role != "admin":
        raise Forbidden(f"{identity.user_id} is not a member of {group_id}")
    return await node.history.read(group_id, **_paging(request))


def _paging(request: Request) -> dict[str, Any]:
    limit = number(request, "limit", 1, HISTORY_LIMIT_MAX)
    return {
        "limit": HISTORY_LIMIT if limit is None else limit,
        "before_seq": number(request, "before_seq", 0, 2**63 - 1),
        "after_seq": number(request, "after_seq", 0, 2**63 - 1),
    }


def number(request: Request, name: str, least: int, most: int) -> int | None:
    """A query parameter as a whole number; None when it is not there. Raises BadParameter."""
    value = request.query_params.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20 and least <= int(value) <= most):
        raise BadParameter(
            f"expected {name} to be a whole number from {least} to {most}, got {value[:24]!r}", field=name
        )
    return int(value)
