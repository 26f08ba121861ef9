"""What a connected client may say: each frame is answered, refused with a reason, or passed on. Never dropped."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError

from kama.errors import BadParameter, Busy, CloseCode, DatabaseFailed, Forbidden, KamaError, NotFound
from kama.protocol import (
    AuthFrame,
    ChatMessageRequest,
    DeliveredFrame,
    MessageStatus,
    PingFrame,
    PongFrame,
    PullFrame,
    ReadFrame,
    SystemFrame,
    conversation_id,
    decode_frame,
    encode,
    error_frame,
    participants,
)
from kama.server.auth import TokenKeeper
from kama.server.chat_server import ChatServer
from kama.server.directory import Directory
from kama.server.events import Journal
from kama.server.expiry import Expiry
from kama.server.limits import TokenBuckets
from kama.server.membership import Membership
from kama.server.message_back import message_back
from kama.server.peers import Closed, Peers
from kama.server.registry import ClientRegistry
from kama.server.status import StatusWriter
from kama.server.store.messages import MessageStore
from kama.server.ws_gateway import UserConn

log = structlog.get_logger("kama.session")

_PONG = encode(PongFrame())

StoreFrame = DeliveredFrame | ReadFrame | PullFrame


class Sessions:
    """Starts connections: registered before the first frame, undone at the end, each its own only."""

    def __init__(
        self,
        chat: ChatServer,
        registry: ClientRegistry,
        directory: Directory,
        peers: Peers,
        membership: Membership,
        store: MessageStore,
        status: StatusWriter,
        tokens: TokenKeeper,
        abuse: TokenBuckets,
        journal: Journal,
    ) -> None:
        self._chat = chat
        self._registry = registry
        self._directory = directory
        self._peers = peers
        self._membership = membership
        self._store = store
        self._status = status
        self._tokens = tokens
        self._abuse = abuse
        self._journal = journal
        self.refused_frames = 0
        self._log = log.bind()  # made once: where the level is above info, a line costs next to nothing

    async def connect(self, conn: UserConn) -> None:
        """Let a connection in, and start it. Raises what the registry says when it may not come in."""
        self._registry.add(conn)
        try:
            await self._enter(conn)
        except BaseException:
            self._registry.discard(conn)
            conn.queue.take()  # what others gave to it meanwhile waits no more
            raise
        if conn.closing is not None:  # sent away meanwhile, before the directory knew it
            self._directory.leave(conn)
            return
        self._journal.traffic.logins += 1
        self._log.info("connected", conn=conn.id, user=conn.user_id, device=conn.device, address=conn.address)
        conn.expiry = Expiry(conn)
        conn.start(self.on_frame)

    def left(self, conn: UserConn) -> None:
        """A connection was closed, by whomever."""
        if conn.expiry is not None:
            conn.expiry.cancel()
        self._registry.discard(conn)
        self._directory.leave(conn)
        code, reason = conn.closing or (CloseCode.NORMAL, "")
        self._log.info("disconnected", conn=conn.id, user=conn.user_id, code=int(code), reason=reason)

    async def _enter(self, conn: UserConn) -> None:
        """Known to all nodes before it is caught up: what is stored from now on finds its way here."""
        replaced = await self._directory.enter(conn)
        if replaced:
            gone = Closed(conn.user_id, CloseCode.REPLACED, "replaced by another login", list(replaced))
            self._peers.post((conn.user_id,), gone)

    def on_frame(self, conn: UserConn, data: bytes) -> Coroutine[Any, Any, None] | None:
        """Handles a frame at once, but for what it gives: that has to be waited for."""
        client_msg_id: str | None = None
        try:
            frame = decode_frame(data)
            if isinstance(frame, ChatMessageRequest):
                client_msg_id = frame.client_msg_id
                if self._chat.accept_now(frame, conn.identity, conn.settled, conn.id):
                    return None
            elif isinstance(frame, PingFrame):
                conn.offer_control(_PONG)
                return None
            elif isinstance(frame, AuthFrame):
                self._refresh(conn, frame)
                return None
        except KamaError as error:
            self._refuse(conn, error, client_msg_id)
            return None
        return self._handle_later(conn, frame, client_msg_id)

    async def _handle_later(
        self, conn: UserConn, frame: ChatMessageRequest | StoreFrame, client_msg_id: str | None
    ) -> None:
        try:
            if isinstance(frame, ChatMessageRequest):
                await self._chat.accept(frame, conn.identity, conn.settled, conn.id)
            else:
                await self._ask_store(conn, frame)
        except KamaError as error:
            self._refuse(conn, error, client_msg_id)
        except (SQLAlchemyError, OSError) as error:
            log.warning("store failed while a frame was handled", conn=conn.id, error=repr(error))
            self._refuse(conn, DatabaseFailed("the store does not answer: try again later"), client_msg_id)

    def _refuse(self, conn: UserConn, error: KamaError, client_msg_id: str | None) -> None:
        self.refused_frames += 1
        conn.counters.refused += 1
        conn.counters.error = error.message
        self._journal.refused(conn.user_id, conn.id, error.code, error.message)
        conn.offer_control(error_frame(error, client_msg_id))
        # A node that is full, ends or has lost its store refuses what is right: who sent it is to come back.
        if not isinstance(error, Busy | DatabaseFailed) and self._abuse.take(conn.user_id) > 0:
            conn.close(CloseCode.ABUSE, "too many refused frames")

    async def _ask_store(self, conn: UserConn, frame: StoreFrame) -> None:
        match frame:
            case DeliveredFrame():
                await self._on_receipt(conn, frame.uuid, MessageStatus.DELIVERED)
            case ReadFrame():
                await self._on_receipt(conn, frame.uuid, MessageStatus.READ)
            case PullFrame():
                await self._on_pull(conn, frame)
            case _:
                assert_never(frame)

    def _refresh(self, conn: UserConn, frame: AuthFrame) -> None:
        """A newer token for a live connection: of the same user, or the connection stays as it was."""
        identity = self._tokens.verify(frame.token)
        if not identity.may_act_for(conn.user_id):
            raise Forbidden(f"expected a token of {conn.user_id}, got one of {identity.user_id}", field="token")
        conn.identity = identity.acting_as(conn.user_id)
        if conn.expiry is not None:
            conn.expiry.schedule()

    async def _on_receipt(self, conn: UserConn, uuid: str, status: MessageStatus) -> None:
        place = await self._store.place(int(uuid)) if uuid.isascii() and uuid.isdigit() and len(uuid) < 20 else None
        if place is None:
            raise NotFound(f"expected the uuid of a message, got {uuid[:24]!r}", field="uuid")
        await self._check_access(conn.user_id, place.conversation, field="uuid")
        self._status.mark_received(conn.user_id, place.conversation, place.seq, status)

    async def _on_pull(self, conn: UserConn, frame: PullFrame) -> None:
        await self._check_access(conn.user_id, frame.conversation, field="conversation")
        history = await self._store.history(frame.conversation, frame.limit, after_seq=frame.after_seq)
        # What the connection will be pushed anyway is not for a pull to anticipate: it would come twice.
        pushed = conn.pushed.last(frame.conversation)
        last_seq = history.last_seq if pushed is None else min(pushed, history.last_seq)
        pulled = [message for message in history.messages if message.seq <= last_seq]
        for message in pulled:
            await conn.push(message_back(frame.conversation, message, pulled=True))
        reached = pulled[-1].seq if pulled else frame.after_seq
        done = SystemFrame(
            content="pulled",
            event="pulled",
            conversation=frame.conversation,
            last_seq=last_seq,
            complete=reached >= last_seq,
        )
        await conn.push(encode(done))

    async def _check_access(self, user_id: str, conversation: str, field: str) -> None:
        pair = participants(conversation)
        if pair is None and not conversation.startswith("G"):
            raise BadParameter(f"expected a conversation, got {conversation[:41]!r}", field=field)
        if pair is not None and (key := conversation_id(*pair)) != conversation:
            raise BadParameter(f"expected the conversation {key}, got {conversation!r}", field=field)
        inside = pair or await self._membership.members(conversation) or ()
        if user_id not in inside:
            raise Forbidden(f"{user_id} has no part in this conversation", field=field)
