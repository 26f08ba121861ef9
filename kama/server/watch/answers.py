"""Answers to what a watcher asks: about a message, about a user, and the actions of an administrator."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, assert_never

from kama.errors import Forbidden
from kama.monitor_protocol import Drain, Kick, MessageTrace, Outcome, Send, Trace, User, UserDetail
from kama.protocol import ChatMessageRequest, MessageType, conversation_id
from kama.server.auth import Identity
from kama.server.events import build_event
from kama.server.snowflake import timestamp_ms
from kama.server.watch import actions
from kama.server.watch.client_view import build_client

if TYPE_CHECKING:
    from kama.server.app import Node

Request = Trace | User | Kick | Send | Drain


async def answer(node: Node, actor: Identity, request: Request) -> Outcome:
    """Raises Forbidden for an action that the role does not allow, and whatever KamaError the action itself raises."""
    if isinstance(request, Kick | Send | Drain) and actor.role != "admin":
        raise Forbidden(f"expected the role admin, got {actor.role}")
    match request:
        case Trace():
            return Outcome(trace=await trace(node, int(request.uuid)))
        case User():
            return Outcome(user=await describe_user(node, request.user_id))
        case Kick():
            closed = await actions.kick(node, actor, request.user_id, request.connection, request.reason)
            return Outcome(closed=closed)
        case Send():
            stored = await actions.send(node, actor, _message(actor, request))
            return Outcome(uuid=str(stored.uuid), conversation=stored.conversation, seq=stored.seq or None)
        case Drain():
            actions.drain(node, actor)
            return Outcome()
        case _:
            assert_never(request)


async def trace(node: Node, uuid: int) -> MessageTrace:
    """What this node noted of a message, and how the store has it."""
    steps = [build_event(entry, node.name) for entry in node.journal.of_message(uuid)]
    found = MessageTrace(uuid=str(uuid), steps=steps, evicted=timestamp_ms(uuid) < node.journal.kept_since_ms)
    message = await node.messages.find(uuid)
    if message is not None:
        found.conversation = conversation_id(message.send_id, message.receive_id)
        found.seq = message.seq
        found.send_id, found.receive_id = message.send_id, message.receive_id
        found.type = message.type
        found.size = len(message.content) + len(message.av_data or "")
        found.created_ms = message.created_ms
        found.status = int(message.status)
    return found


async def describe_user(node: Node, user_id: str) -> UserDetail:
    return UserDetail(
        user_id=user_id,
        clients=[build_client(conn, node.name) for conn in node.registry.get(user_id)],
        elsewhere=await node.directory.count(user_id),
        groups=await node.groups.groups_of(user_id),
    )


def _message(actor: Identity, send: Send) -> ChatMessageRequest:
    """The same request of the same administrator is the same message, however often it comes."""
    once = hashlib.blake2b(f"{actor.user_id}\0{send.request}".encode(), digest_size=16).hexdigest()
    return ChatMessageRequest(
        type=MessageType.TEXT,
        send_id=send.send_id,
        receive_id=send.receive_id,
        content=send.content,
        client_msg_id=f"monitor-{once}",
    )
