"""ChatServer: a request is checked and published; the sender waits while there is no room. The consumer does the rest.

The same for every broker.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection
from typing import NoReturn

from kama.errors import Busy, Forbidden, KamaError, NoSuchGroup, RateLimited
from kama.protocol import (
    SIGNAL,
    BadFrame,
    ChatMessageRequest,
    conversation_id,
    is_stored_signal,
)
from kama.server.auth import Identity
from kama.server.broker import MessageBroker, Record, Settle, Stored
from kama.server.cache import HistoryCache
from kama.server.consumer import Consumer
from kama.server.delivery import Delivery
from kama.server.events import Journal
from kama.server.limits import TokenBuckets
from kama.server.membership import Membership
from kama.server.peers import Peers
from kama.server.retries import Retries
from kama.server.snowflake import Snowflake, timestamp_ms
from kama.server.store.messages import MessageStore
from kama.server.tasks import cancel, spawn
from kama.server.traffic import HighMark


class ChatServer:
    """`file_max_size` in characters, `publish_timeout` in seconds; `retries` where the broker itself acknowledges."""

    def __init__(
        self,
        broker: MessageBroker,
        store: MessageStore,
        delivery: Delivery,
        peers: Peers,
        membership: Membership,
        cache: HistoryCache,
        ids: Snowflake,
        buckets: TokenBuckets,
        retries: Retries | None = None,
        *,
        file_max_size: int,
        publish_timeout: float,
        journal: Journal | None = None,
    ) -> None:
        journal = journal or Journal()
        self._broker = broker
        self._membership = membership
        self._ids = ids
        self._buckets = buckets
        self._retries = retries
        self._file_max_size = file_max_size
        self._publish_timeout = publish_timeout
        self._journal = journal
        self._consumer = Consumer(broker, store, delivery, peers, cache, journal)
        self._consuming: asyncio.Task[None] | None = None
        self.counters = self._consumer.counters
        self.mark = HighMark()

    async def start(self) -> None:
        self._consuming = spawn(self._consumer.run(), name="consumer")

    async def close(self, timeout: float) -> None:
        """Take nothing more; store and deliver what was taken, for at most `timeout` seconds.

        What is not stored by then was never acknowledged.
        """
        await self._broker.close()
        if self._consuming is not None:
            await asyncio.wait([self._consuming], timeout=timeout)
            await cancel(self._consuming)

    @property
    def depth(self) -> int:
        """Messages accepted and not yet stored."""
        return self._broker.depth

    @property
    def waiting(self) -> int:
        """Messages in the transmit queue."""
        return self._broker.waiting

    @property
    def is_consuming(self) -> bool:
        return self._consuming is not None and not self._consuming.done()

    @property
    def store_failing(self) -> bool:
        return self._consumer.store_failing

    # --- accept

    async def accept(
        self, request: ChatMessageRequest, sender: Identity, settle: Settle, connection: str = ""
    ) -> Record:
        """Check a message and publish it. `settle` is told what became of it, unless this raises.

        `connection`: the id of the one it came from.

        Raises BadFrame, Forbidden, NoSuchGroup, RateLimited, and Busy when there was no room in time.
        """
        ephemeral = self._check(request, sender)
        if wait := self._buckets.take(sender.user_id):
            self._refuse_rate(wait)
        if request.receive_id[0] == "G":
            self._check_member(request, await self._membership.members(request.receive_id))
        uuid = await self._uuid(request)
        key = _key_of(request.send_id, request.receive_id)
        record = Record(key, request, uuid, timestamp_ms(uuid), ephemeral, settle)
        await self._broker.publish(record, self._publish_timeout)
        self._note_accepted(record, connection)
        return record

    def accept_now(self, request: ChatMessageRequest, sender: Identity, settle: Settle, connection: str = "") -> bool:
        """`accept`, when nothing has to be waited for. False: nothing was done, `accept` it. Raises the same."""
        if self._retries is not None and request.client_msg_id is not None:
            return False
        ephemeral = self._check(request, sender)
        receive_id = request.receive_id
        members = None
        if receive_id[0] == "G":
            members = self._membership.known(receive_id)
            if members is None:
                return False
        if wait := self._buckets.take(sender.user_id):
            self._refuse_rate(wait)
        if members is not None:
            self._check_member(request, members)
        uuid = self._ids.next()
        key = _key_of(request.send_id, receive_id)
        record = Record(key, request, uuid, timestamp_ms(uuid), ephemeral, settle)
        if not self._broker.publish_now(record):
            self._buckets.give_back(sender.user_id)
            return False
        self._note_accepted(record, connection)
        return True

    def _note_accepted(self, record: Record, connection: str) -> None:
        self.counters.accepted += 1
        waiting = self._broker.waiting
        if waiting:
            self.mark.see(waiting)
        request = record.request
        size = len(request.content) + len(request.av_data)
        self._journal.accepted(
            record.uuid, record.key, request.send_id, request.receive_id, request.type, size, connection
        )

    def _refuse_rate(self, wait: float) -> NoReturn:
        self.counters.rate_limited += 1
        raise RateLimited("more messages than limits.messages_per_second and limits.burst", retry_after=wait)

    async def _uuid(self, request: ChatMessageRequest) -> int:
        """A new id, or for a retry the one of the first try."""
        if self._retries is None or request.client_msg_id is None:
            return self._ids.next()
        key = (request.send_id, request.client_msg_id)
        uuid = await self._retries.find(key) or self._ids.next()
        self._retries.remember(key, uuid)
        return uuid

    def _check(self, request: ChatMessageRequest, sender: Identity) -> bool:
        """Whether it is ephemeral: a call signal that is not stored."""
        if request.send_id != sender.user_id and not sender.may_act_for(request.send_id):
            raise Forbidden(f"expected send_id {sender.user_id}, got {request.send_id}", field="send_id")
        size = len(request.content) + len(request.av_data)
        if size > self._file_max_size:
            raise BadFrame(
                f"expected at most {self._file_max_size} characters of content and av_data, got {size}",
                field="content" if request.content else "av_data",
            )
        return request.type == SIGNAL and not is_stored_signal(request)

    def _check_member(self, request: ChatMessageRequest, members: Collection[str] | None) -> None:
        if members is None:
            raise NoSuchGroup(f"there is no group {request.receive_id}", field="receive_id")
        if request.send_id not in members:
            raise Forbidden(f"{request.send_id} is not a member of {request.receive_id}", field="receive_id")

    async def accept_and_wait(self, request: ChatMessageRequest, sender: Identity) -> Stored:
        """For a caller without a connection: accept, and wait until the message is stored.

        Raises what `accept` raises, what the store refuses, and Busy when it takes too long.
        """
        future: asyncio.Future[Stored | KamaError] = asyncio.get_running_loop().create_future()

        def settle(_record: Record, outcome: Stored | KamaError) -> None:
            if not future.done():
                future.set_result(outcome)

        await self.accept(request, sender, settle)
        try:
            async with asyncio.timeout(self._publish_timeout):
                outcome = await future
        except TimeoutError:
            raise Busy("the store does not answer: send it again with the same client_msg_id") from None
        if isinstance(outcome, KamaError):
            raise outcome
        return outcome


_key_of: Callable[[str, str], str] = functools.lru_cache(50_000)(conversation_id)
