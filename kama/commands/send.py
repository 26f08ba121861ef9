"""`kama send`: post messages as a test client would, and wait for what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kama.commands.common import (
    AsJson,
    ConfigFile,
    DataDir,
    Server,
    Target,
    TokenFile,
    duration,
    print_json,
    read_stdin,
    run,
    user_id,
    user_or_group_id,
)
from kama.errors import KamaError, RateLimited, TimedOut, TooLarge
from kama.protocol import MessageType, conversation_id, encode
from kama.text import sanitize

if TYPE_CHECKING:
    from kama.client import Connection

_TYPES = {
    "text": MessageType.TEXT,
    "voice": MessageType.VOICE,
    "file": MessageType.FILE,
    "av": MessageType.AUDIO_OR_VIDEO,
}
_RISEN = ("sent", "delivered", "read")
Wait = Literal["accepted", "sent"]


def send(
    send_id: Annotated[str, typer.Option("--from", parser=user_id, metavar="U…", help="The sender")],
    receive_id: Annotated[
        str, typer.Option("--to", parser=user_or_group_id, metavar="U…|G…", help="A user or a group")
    ],
    text: Annotated[str | None, typer.Argument(metavar="[TEXT|-]", help="The content; - reads stdin")] = None,
    kind: Annotated[Literal["text", "voice", "file", "av"], typer.Option("--type", help="What it is")] = "text",
    url: Annotated[str, typer.Option(help="Where a voice or file message's file is")] = "",
    file_name: Annotated[str, typer.Option(help="The file's name")] = "",
    file_size: Annotated[str, typer.Option(help="The file's size, as shown")] = "",
    file_type: Annotated[str, typer.Option(help="The file's type")] = "",
    av_data: Annotated[str, typer.Option(help="A call signal's JSON")] = "",
    session_id: Annotated[str, typer.Option(help="The client's session id, stored as it is")] = "",
    wait: Annotated[
        Wait, typer.Option(help="What success means: stored safely, or written to a receiver")
    ] = "accepted",
    timeout: Annotated[
        float, typer.Option(parser=duration, metavar="DURATION", help="How long to wait for each message")
    ] = 5.0,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many times")] = 1,
    rate: Annotated[float | None, typer.Option(min=0.001, max=1e6, help="At most so many a second")] = None,
    server: Server = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Post a message and print its uuid. Exit code 5: not accepted, or not sent, in time."""
    _check(kind, text, av_data, wait)
    message = {
        "type": int(_TYPES[kind]),
        "send_id": send_id,
        "receive_id": receive_id,
        "session_id": session_id,
        "content": _content(text),
        "url": url,
        "file_name": file_name,
        "file_size": file_size,
        "file_type": file_type,
        "av_data": av_data,
    }
    target = Target(config_file, data_dir, server, token_file)
    run(_send_all(target, message, wait, timeout, count, rate, as_json))


def _check(kind: str, text: str | None, av_data: str, wait: Wait) -> None:
    if kind == "text" and text is None:
        raise typer.BadParameter("expected the text of the message, or - for stdin, got nothing", param_hint="TEXT")
    if kind == "av" and not av_data:
        raise typer.BadParameter("expected the call signal's JSON, got nothing", param_hint="--av-data")
    if kind == "av" and wait == "sent":
        raise typer.BadParameter("expected accepted: a call signal's sender gets no status", param_hint="--wait")


def _content(text: str | None) -> str:
    return read_stdin().removesuffix("\n") if text == "-" else text or ""


async def _send_all(
    target: Target, message: dict[str, Any], wait: Wait, timeout: float, count: int, rate: float | None, as_json: bool
) -> None:
    async with (
        target.open(message["send_id"], timeout=timeout) as client,
        client.login(message["send_id"], device="kama-send", post_only=True) as connection,
    ):
        async with _in_time("the node did not welcome the connection", timeout):
            _check_size(message, await connection.receive())
        poster = Poster(connection, message, wait)
        for due in _schedule(count, rate):
            await asyncio.sleep(due - time.monotonic())
            receipt = await poster.post(timeout)
            if as_json:
                print_json(receipt.as_dict())
            else:
                print(sanitize(str(receipt.uuid)), flush=True)


@contextlib.asynccontextmanager
async def _in_time(what: str, timeout: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError:
        raise TimedOut(f"{what} within {timeout:g} s") from None


def _check_size(message: dict[str, Any], welcome: dict[str, Any]) -> None:
    """A larger frame would end the connection, and only after the node's time to linger would we know."""
    limits = welcome.get("limits")
    most = limits.get("message_size") if isinstance(limits, dict) else None
    size = len(encode({**message, "client_msg_id": _new_id()}))
    if isinstance(most, int) and size > most:
        raise TooLarge(f"expected a message of at most {most} bytes (the node's limits.message_size), got {size}")


def _new_id() -> str:
    return uuid.uuid4().hex


def _schedule(count: int, rate: float | None) -> Iterator[float]:
    """When each message is due, on the monotonic clock."""
    start = time.monotonic()
    for number in range(count):
        yield start + (number / rate if rate else 0)


@dataclass
class Receipt:
    """What is known of one posted message."""

    client_msg_id: str
    conversation: str
    uuid: str | None = None
    seq: int | None = None
    statuses: dict[str, list[range]] = field(default_factory=dict)  # the seqs that have it

    @property
    def status(self) -> str:
        """The highest status that its seq has reached."""
        reached = [name for name in _RISEN if any(self.seq in seqs for seqs in self.statuses.get(name, ()))]
        return reached[-1] if reached else "accepted"

    def as_dict(self) -> dict[str, Any]:
        known = {"uuid": self.uuid, "client_msg_id": self.client_msg_id, "conversation": self.conversation}
        return {**known, "seq": self.seq, "status": self.status}


class Poster:
    """Posts one message at a time over a connection and follows it: ack, echo (its seq), status."""

    def __init__(self, connection: Connection, message: dict[str, Any], wait: Wait) -> None:
        self._connection = connection
        self._message = message
        self._wait = wait

    async def post(self, timeout: float) -> Receipt:
        """Raises TimedOut, and what the node refuses the message with. A rate limit is waited for."""
        key = conversation_id(self._message["send_id"], self._message["receive_id"])
        receipt = Receipt(_new_id(), key)
        while True:
            try:
                async with asyncio.timeout(timeout):
                    await self._connection.send({**self._message, "client_msg_id": receipt.client_msg_id})
                    await self._follow(receipt)
                return receipt
            except RateLimited as limited:
                await asyncio.sleep(limited.retry_after)
            except TimeoutError:
                raise TimedOut(self._late(receipt, timeout)) from None

    async def _follow(self, receipt: Receipt) -> None:
        while not self._is_done(receipt):
            self._take(receipt, await self._connection.receive())

    def _is_done(self, receipt: Receipt) -> bool:
        return receipt.uuid is not None and (self._wait == "accepted" or receipt.status in _RISEN)

    def _take(self, receipt: Receipt, frame: dict[str, Any]) -> None:
        mine = frame.get("client_msg_id") == receipt.client_msg_id
        match frame.get("type"):
            case "ack" if mine:
                receipt.uuid = frame["uuid"]
            case "error" if mine or "client_msg_id" not in frame:
                raise _refusal(frame)
            case "status" if frame["conversation"] == receipt.conversation:
                seqs = range(frame.get("after", 0) + 1, frame["seq"] + 1)
                receipt.statuses.setdefault(frame["status"], []).append(seqs)
            case int() if mine:
                receipt.seq = frame["seq"]

    def _late(self, receipt: Receipt, timeout: float) -> str:
        if receipt.uuid is None:
            return f"the message was not accepted within {timeout:g} s"
        return f"message {receipt.uuid} was accepted, but not sent within {timeout:g} s: no receiver took it"


def _refusal(frame: dict[str, Any]) -> KamaError:
    from kama.client import error_of

    return error_of(frame)
