"""`kama trace`: the life of one message, step by step, from all nodes that had it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kama.commands.common import AsJson, ConfigFile, DataDir, TokenFile, note, print_json, print_table, run
from kama.commands.watching import Servers, Tokens, find_servers, once
from kama.errors import KamaError, NotFound
from kama.text import sanitize

if TYPE_CHECKING:
    from kama.monitor.asking import Traced
    from kama.monitor.trace import Timeline
    from kama.monitor_protocol import MessageTrace

_OTHERS_TIMEOUT = 5.0


def _uuid(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,19}", text) is None:
        raise typer.BadParameter(f"expected a message's uuid, 1 to 19 digits, got {text[:24]!r}")
    return text


def trace(
    uuid: Annotated[str, typer.Argument(parser=_uuid, metavar="UUID", help="The message, as its ack named it")],
    server: Servers = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show what became of a message: each step, what it took, and what is missing. Asks every node of the cluster."""
    servers = find_servers(server)
    token = once(Tokens(config_file, data_dir, token_file, servers), token_file)

    async def call() -> None:
        from kama.monitor.trace import timeline

        found = timeline(await _ask_all(servers, token, uuid))
        if not found.is_known:
            raise NotFound(f"no node knows of message {uuid}", hint="it is too old, or never was")
        if as_json:
            print_json(_as_dict(found))
        else:
            _print(found)

    run(call())


async def _ask_all(servers: tuple[str, ...], token: Callable[[], str], uuid: str) -> list[MessageTrace]:
    """The nodes that were named have to answer; of those that they tell of, those that do."""
    from kama.monitor.asking import ask_trace

    named = await asyncio.gather(*(ask_trace(server, token, uuid) for server in servers))
    others = _others(servers, named)
    told = await asyncio.gather(
        *(ask_trace(other, token, uuid, _OTHERS_TIMEOUT) for other in others), return_exceptions=True
    )
    traces = [traced.trace for traced in named]
    for other, answer in zip(others, told, strict=True):
        if isinstance(answer, KamaError):
            note(f"kama: {other} was not asked: {answer.message}")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            traces.append(answer.trace)
    return traces


def _others(servers: Iterable[str], named: Iterable[Traced]) -> list[str]:
    """A cluster's other nodes. A node that is alone lists itself only, by whatever address."""
    listed = {
        f"http://{node.address}"
        for traced in named
        if len(traced.nodes) > 1
        for node in traced.nodes
        if node.address and node.state != "gone"
    }
    return sorted(listed - set(servers))


def _print(found: Timeline) -> None:
    from kama.monitor.trace import describe

    status = found.status.name.lower() if found.status is not None else "not stored"
    print(sanitize(f"message {found.uuid}  {found.send_id} to {found.receive_id}  seq {found.seq}  {status}"))
    print(sanitize(found.sentence))
    if found.steps:
        print_table(
            *(
                (
                    _clock(step.event.at_ms),
                    "" if step.delta_ms is None else f"+{step.delta_ms} ms",
                    step.event.node,
                    step.event.kind + (" (slowest)" if step.is_slowest else ""),
                    describe(step.event),
                )
                for step in found.steps
            )
        )
    for words in found.missing:
        print(sanitize(words))


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).strftime("%H:%M:%S.%f")[:-3]


def _as_dict(found: Timeline) -> dict[str, Any]:
    import msgspec

    return {
        "uuid": found.uuid,
        "conversation": found.conversation,
        "seq": found.seq,
        "send_id": found.send_id,
        "receive_id": found.receive_id,
        "type": found.type,
        "size": found.size,
        "created_ms": found.created_ms,
        "status": found.status.name.lower() if found.status is not None else None,
        "summary": found.sentence,
        "missing": list(found.missing),
        "steps": [
            {**msgspec.to_builtins(step.event), "delta_ms": step.delta_ms, "slowest": step.is_slowest}
            for step in found.steps
        ],
    }
