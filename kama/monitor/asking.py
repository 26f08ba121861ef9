"""Asking a node once: a snapshot over HTTP, a trace over a connection that lasts no longer."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from kama.client import NodeClient, Token
from kama.errors import Busy, CannotConnect, KamaError, TimedOut, error_from_code
from kama.monitor.link import check_hello
from kama.monitor.live_source import decode_frame
from kama.monitor.snapshot import read_snapshot
from kama.monitor_protocol import Bye, ClientQuery, Hello, MessageTrace, Node, Result, Snap, Snapshot, Sub, Trace


async def ask_snapshot(server: str, token: Token, timeout: float = 10.0) -> Snapshot:
    """What the node at that URL shows now. Raises what NodeClient raises, and Incompatible."""
    async with NodeClient(server, token, timeout=timeout) as client:
        return read_snapshot(await client.get("/monitor/snapshot"))


@dataclass(frozen=True, slots=True)
class Traced:
    """What a node knows of a message, and which nodes it knows."""

    trace: MessageTrace
    nodes: list[Node]


async def ask_trace(server: str, token: Token, uuid: str, timeout: float = 10.0) -> Traced:
    """Raises what NodeClient raises, Incompatible, and what the node answers."""
    async with NodeClient(server, token, timeout=timeout) as client, client.watch() as connection:
        with contextlib.suppress(CannotConnect):  # what a node says before it hangs up is still to be read
            await connection.send(Sub(clients=ClientQuery(limit=0), events=None))
            await connection.send(Trace(request="trace", uuid=uuid))
        trace: MessageTrace | None = None
        nodes: list[Node] | None = None
        try:
            async with asyncio.timeout(timeout):
                while trace is None or nodes is None:
                    match decode_frame(await connection.receive_bytes()):
                        case Hello() as hello:
                            check_hello(hello)
                        case Snap() as snap:
                            nodes = snap.nodes
                        case Result() as result:
                            trace = _trace_of(result)
                        case Bye() as bye:
                            raise Busy(bye.message or f"the node ends the watching: {bye.reason}")
                        case _:
                            pass
        except TimeoutError:
            raise TimedOut(f"{server} did not answer within {timeout:g} s") from None
        return Traced(trace, nodes)


def _trace_of(result: Result) -> MessageTrace:
    if result.error is not None:
        raise error_from_code(result.error.code, result.error.message)
    if result.outcome is None or result.outcome.trace is None:
        raise KamaError("expected a trace as the answer, got none")
    return result.outcome.trace
