"""Requests: frames that a node answers, and who waits for which answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kama.errors import KamaError, TimedOut, error_from_code
from kama.monitor.source import Request
from kama.monitor_protocol import Outcome, Result


class Requests:
    """The requests of one connection to one node that are not answered yet, by their ids."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}

    async def ask(self, request: Request, send: Callable[[Request], Awaitable[None]], timeout: float) -> Outcome:
        """Send it and wait for its result. Raises TimedOut after `timeout` seconds, and what the node answers."""
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[request.request] = answer
        try:
            async with asyncio.timeout(timeout):
                await send(request)
                return await answer
        except TimeoutError:
            raise TimedOut(f"the node did not answer within {timeout:g} s") from None
        finally:
            if self._waiting.get(request.request) is answer:
                del self._waiting[request.request]

    def answer(self, result: Result) -> None:
        waiting = self._waiting.get(result.request)
        if waiting is None or waiting.done():
            return
        if result.error is not None:
            waiting.set_exception(error_from_code(result.error.code, result.error.message))
        else:
            waiting.set_result(result.outcome or Outcome())

    def fail(self, error: KamaError) -> None:
        """The connection ended: nothing more will be answered on it."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
