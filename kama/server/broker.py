"""What a broker is: transport between accepting a message and storing it. It knows no user, socket or table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from kama.errors import KamaError
from kama.monitor_protocol import Partition
from kama.protocol import ChatMessageRequest


class Stored(Struct, gc=False):
    """Where a record ended: a duplicate points at the message that was there first."""

    uuid: int
    conversation: str
    seq: int
    duplicate: bool = False


class Record(Struct):
    """One accepted message on its way to the store. `key` is its conversation: what shares it keeps its order.

    `settle` is told once what became of the record, by whoever can promise it.
    """

    key: str
    request: ChatMessageRequest
    uuid: int
    accepted_ms: int
    ephemeral: bool = False
    settle: Settle | None = None

    def settled(self, outcome: Stored | KamaError) -> None:
        settle, self.settle = self.settle, None
        if settle is not None:
            settle(self, outcome)


Settle = Callable[[Record, Stored | KamaError], None]


class MessageBroker(Protocol):
    """`publish` waits while there is no room; `batches` hands over what gathered, in order.

    What follows a batch's yield (asking for the next one) says that the batch is stored.
    """

    @property
    def depth(self) -> int:
        """Records published and not yet stored, the batch in hand included."""
        ...

    @property
    def waiting(self) -> int:
        """Of these, those that take room from others: what `publish` is bounded by."""
        ...

    @property
    def trouble(self) -> str:
        """What does not work now, as far as it is known without asking; empty while nothing fails."""
        ...

    @property
    def partitions(self) -> Sequence[Partition]:
        """What of the transport this node stores, and how far it is, as of the last fetch."""
        ...

    @property
    def rebalances(self) -> int:
        """How often this node was given other partitions."""
        ...

    @property
    def poisoned(self) -> int:
        """Records that could not be read, and were put aside."""
        ...

    async def start(self) -> None: ...

    async def publish(self, record: Record, timeout: float) -> None:
        """Raises Busy when there is no room within `timeout` seconds, or when the broker is closed."""
        ...

    def publish_now(self, record: Record) -> bool:
        """Publish without waiting. False when that cannot be, and nothing was done. Raises Busy when closed."""
        ...

    def batches(self) -> AsyncIterator[Sequence[Record]]:
        """Ends after `close`, once everything that was published has been handed over."""
        ...

    async def sweep(self, nodes: Collection[str]) -> None:
        """Forget what was kept for nodes other than these."""
        ...

    async def forward(self, node: str, payload: bytes) -> None:
        """Into the inbox of another node. Raises what the transport raises when it is not there for certain."""
        ...

    def inbox(self) -> AsyncIterator[bytes]:
        """What other nodes forwarded to this one, in the order of each of them."""
        ...

    async def check(self) -> None:
        """Raises what the transport raises when it does not answer now."""
        ...

    async def close(self) -> None:
        """Take nothing more. Twice is harmless."""
        ...

    async def stop(self) -> None:
        """Let go of everything, once nobody asks for batches any more. Twice is harmless."""
        ...
