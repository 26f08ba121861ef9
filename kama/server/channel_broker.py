"""ChannelBroker: a bounded queue within the process. A batch is whatever gathered while the last one was stored."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
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
        self._size = size
        # Who waits, in order: asyncio.Queue would let late comers pass them.
        self._waiting: OrderedDict[asyncio.Future[bool], Record] = OrderedDict()
        self._wake = asyncio.Event()
        self._closed = False
        self._is_idle = False

    @property
    def depth(self) -> int:
        return len(self._records) + self._in_hand

    @property
    def waiting(self) -> int:
        return 0 if self._is_idle else len(self._records)

    async def start(self) -> None:
        """Nothing to start: the queue is there."""

    async def publish(self, record: Record, timeout: float) -> None:
        if self.publish_now(record):
            return
        entered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[entered] = record
        try:
            async with asyncio.timeout(timeout):
                await entered
        except TimeoutError:
            if entered.cancelled():
                raise Busy(f"the transmit queue has been full for {timeout:g} s: try again later") from None
        finally:
            self._waiting.pop(entered, None)
        if not entered.result():
            raise _closed()

    def publish_now(self, record: Record) -> bool:
        if self._closed:
            raise _closed()
        # Who takes the batches is only waiting for its turn of the loop: what comes within one is one batch.
        is_full = len(self._records) >= self._size and not self._is_idle
        if self._waiting or is_full:
            return False
        self._records.append(record)
        if self._is_idle:
            self._wake.set()
        return True

    def _let_in(self) -> None:
        """Those who wait, as many as there is room for."""
        while self._waiting and len(self._records) < self._size:
            entered, record = self._waiting.popitem(last=False)
            if not entered.done():
                self._records.append(record)
                entered.set_result(True)

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        while True:
            while not self._records:
                if self._closed:
                    return
                self._wake.clear()
                self._is_idle = True
                try:
                    await self._wake.wait()
                finally:
                    self._is_idle = False
            batch, self._records = self._records, []
            self._in_hand = len(batch)
            self._let_in()
            yield batch
            self._in_hand = 0

    async def close(self) -> None:
        self._closed = True
        for entered in self._waiting:
            if not entered.done():
                entered.set_result(False)
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


def _closed() -> Busy:
    return Busy("the node is shutting down: send it again to a running node")
