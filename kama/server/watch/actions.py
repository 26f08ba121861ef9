"""Actions: what operators do to a node, by whatever way they ask. Each is logged, and an event for those who watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from kama.errors import CloseCode
from kama.protocol import ChatMessageRequest
from kama.server.auth import Identity
from kama.server.broker import Stored
from kama.server.peers import Closed

if TYPE_CHECKING:
    from kama.server.app import Node

log = structlog.get_logger("kama.admin")


def note(node: Node, actor: Identity, what: str, **details: Any) -> None:
    """Who did what to whom; never a content."""
    log.info(what, actor=actor.user_id, **details)
    told = ", ".join(f"{name}: {value}" for name, value in details.items() if value != "")
    node.journal.action(actor.user_id, f"{what} ({told})" if told else what)


async def kick(node: Node, actor: Identity, user_id: str, connection: str | None, reason: str) -> int:
    """Close a user's connections, or one of them, with 4002: it should not come back by itself. Gives how many."""
    chosen = None if connection is None else [connection]
    closed = await node.peers.close_user(Closed(user_id, CloseCode.KICKED, reason or "kicked", chosen))
    only = {} if connection is None else {"connection": connection}
    note(node, actor, "kicked", target=user_id, **only, reason=reason, closed=closed)
    return closed


async def send(node: Node, actor: Identity, request: ChatMessageRequest) -> Stored:
    """Send a message as a user. Raises what `ChatServer.accept_and_wait` raises."""
    node.check_open()
    stored = await node.chat.accept_and_wait(request, actor.acting_as(request.send_id))
    note(node, actor, "message sent", sender=request.send_id, target=request.receive_id, uuid=stored.uuid)
    return stored


def drain(node: Node, actor: Identity) -> None:
    """Shut the node down as SIGTERM does."""
    note(node, actor, "drain asked for")
    node.ask_to_stop()
