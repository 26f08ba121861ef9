"""ChannelBroker: a bounded queue within the process. A batch is whatever gathered while the last one was stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

from kama.errors import Busy
from kama.monitor_protocol import Partition
from kama.server.broker import Record


class ChannelBroker:
    """The transmit queue of channel mode, `size` records long; who finds it full waits its turn."""

    trouble = ""
    partitions: Sequence[Partition] = ()
    rebalances = 0
    poisoned = 0

    def __init__(self, size: int) -> None:
        self._records: list[Record] = []
        self._in_hand = 0
        # A semaphore and not asyncio.Queue: it serves waiters in order, a queue lets late comers pass them.
        self._room = asyncio.Semaphore(size)
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def depth(self) -> int:
        return len(self._records) + self._in_hand

    async def start(self) -> None:
        """Nothing to start: the queue is there."""

    async def publish(self, record: Record, timeout: float) -> None:
        self._refuse_when_closed()
        if self._room.locked():
            try:
                async with asyncio.timeout(timeout):
                    await self._room.acquire()
            except TimeoutError:
                raise Busy(f"the transmit queue has been full for {timeout:g} s: try again later") from None
        else:
            await self._room.acquire()
        if self._closed:
            self._room.release()  # the next one that waits is to be told as well, and now
        self._refuse_when_closed()
        self._records.append(record)
        self._wake.set()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Busy("the node is shutting down: send it again to a running node")

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        while True:
            while not self._records:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
            batch, self._records = self._records, []
            self._in_hand = len(batch)
            for _ in batch:
                self._room.release()
            yield batch
            self._in_hand = 0

    async def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def forward(self, node: str, payload: bytes) -> None:
        """There is no other node."""
        raise RuntimeError(f"expected no node but this one, got {node}")

    async def sweep(self, nodes: Collection[str]) -> None:
        """Nothing is kept for anybody."""

    async def inbox(self) -> AsyncIterator[bytes]:
        """Nobody forwards anything."""
        nothing: tuple[bytes, ...] = ()
        for payload in nothing:
            yield payload

    async def check(self) -> None:
        """Always here."""

    async def stop(self) -> None:
        """Nothing to stop: the queue goes with the process."""
