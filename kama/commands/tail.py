"""`kama tail`: what happens on nodes, as it happens, a line each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kama.commands.common import (
    AsJson,
    ConfigFile,
    DataDir,
    TokenFile,
    as_json_line,
    count_of,
    duration,
    group_id,
    note,
    run,
    user_id,
)
from kama.commands.watching import FilterText, FollowAll, Servers, Tokens, check_filter, find_servers, once
from kama.errors import CannotConnect, Forbidden, KamaError, TimedOut, Unauthorised
from kama.monitor_protocol import EventKind
from kama.text import sanitize
from kama.units import format_duration

if TYPE_CHECKING:
    from kama.monitor.frames import Item
    from kama.monitor.link import Link
    from kama.monitor.source import Source
    from kama.monitor_protocol import Event

_PER_SECOND = 1000
_NOTES_APART = 5.0


def tail(
    terms: FilterText = "",
    user: Annotated[
        str | None, typer.Option("--user", "-u", parser=user_id, metavar="U…", help="Only what names this user")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", "-g", parser=group_id, metavar="G…", help="Only this group's messages")
    ] = None,
    status: Annotated[
        EventKind | None,
        typer.Option(metavar="KIND", help="Only this step or kind: accepted stored sent delivered read refused …"),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only what went wrong")] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after that many events")] = None,
    wait: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="DURATION", help="End when none came for so long; exit code 5: too few"),
    ] = None,
    server: Servers = None,
    follow_all: FollowAll = False,
    token_file: TokenFile = None,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Print events as they happen, until Ctrl-C: logins, messages and their steps, failures, actions."""
    from kama.monitor.fan_in import watch_nodes
    from kama.monitor_protocol import ClientQuery, EventQuery, Sub

    check_filter(terms)
    wanted = [
        terms,
        f"user={user}" if user else "",
        f"group={group}" if group else "",
        f"kind={status}" if status else "",
        "failed" if failed else "",
    ]
    query = EventQuery(per_second=_PER_SECOND, filter=" ".join(filter(None, wanted)))
    servers = find_servers(server)
    token = once(Tokens(config_file, data_dir, token_file, servers), token_file)
    token()  # what is wrong with it here, before the first try makes the state of a link of it
    sub = Sub(clients=ClientQuery(limit=0), events=query)
    run(_tail(watch_nodes(servers, token, sub, follow_all=follow_all), count, wait, as_json))


async def _tail(source: Source, count: int | None, wait: float | None, as_json: bool) -> None:
    seen = 0
    feed = _Feed()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(wait) as limit, source:
            async for event in feed.events(source):
                print(_json(event) if as_json else _line(event), flush=True)
                seen += 1
                if seen == count:
                    return
                if wait is not None:
                    limit.reschedule(loop.time() + wait)
    except TimeoutError:
        if seen == 0 or count is not None:
            expected = f" of {count}" if count is not None else ""
            missed = f"; {feed.trouble}" if feed.trouble else ""
            words = f"{count_of(seen, 'event')}{expected} came, then none for {format_duration(wait or 0)}{missed}"
            raise TimedOut(words) from None
    finally:
        feed.tell_missed()


class _Feed:
    """The new events of a source, each once; tells on stderr how its links are."""

    def __init__(self) -> None:
        from kama.monitor.recent import Recent

        self._recent = Recent()
        self._since_ms: dict[str, int] = {}  # by source: where its node's clock stood when we came
        self._links: dict[str, Link] = {}
        self._is_new: set[str] = set()
        self._left_out = 0
        self._lost = 0
        self._next_note = 0.0

    @property
    def trouble(self) -> str:
        return "; ".join(f"{name}: {_words(link)}" for name, link in self._links.items() if not link.is_current)

    async def events(self, source: Source) -> AsyncIterator[Event]:
        from kama.monitor.link import Link
        from kama.monitor_protocol import Events, Hello

        async for item in source:
            match item.frame:
                case Link() as link:
                    self._tell(item.source, link)
                case Hello() as hello:
                    self._since_ms.setdefault(item.source, hello.now_ms)
                    self._is_new.add(item.source)
                case Events() as frame:
                    self._left_out += frame.sampled_out
                    self._lost += frame.lost
                    if time.monotonic() >= self._next_note:
                        self.tell_missed()
                    for event in self._new(item):
                        yield event
                case _:
                    pass

    def tell_missed(self) -> None:
        """How many events did not come since it was told the time before, if any."""
        if self._left_out:
            note(f"kama: {count_of(self._left_out, 'event')} left out: more than {_PER_SECOND} a second")
        if self._lost:
            note(f"kama: {count_of(self._lost, 'event')} lost: this end was too slow")
        if self._left_out or self._lost:
            self._next_note = time.monotonic() + _NOTES_APART
        self._left_out = self._lost = 0

    def _new(self, item: Item) -> list[Event]:
        """A node begins with its last events: what happened before we came is not wanted, nor what we had."""
        events: list[Event] = item.frame.items  # type: ignore[union-attr]
        if item.source in self._is_new:
            self._is_new.discard(item.source)
            since_ms = self._since_ms.get(item.source, 0)
            events = [event for event in self._recent.unseen(events) if event.at_ms >= since_ms]
        self._recent.note(events)
        return events

    def _tell(self, source: str, link: Link) -> None:
        """Raises what a person has to mend before this can begin at all."""
        known, self._links[source] = self._links.get(source), link
        if source not in self._since_ms:
            _refuse(link)
        if known is None or (known.state, known.cause) == (link.state, link.cause):
            return
        if link.is_current and source in self._since_ms and not known.is_current and known.cause:
            note(f"kama: {source}: back again")
        elif not link.is_current:
            note(f"kama: {source}: {_words(link)}; trying again")


def _refuse(link: Link) -> None:
    from kama.monitor.link import LinkState

    refusals: dict[LinkState, type[KamaError]] = {
        LinkState.AUTH_FAILED: Unauthorised,
        LinkState.FORBIDDEN: Forbidden,
        LinkState.INCOMPATIBLE: CannotConnect,
    }
    if link.state in refusals:
        raise refusals[link.state](link.cause)


def _words(link: Link) -> str:
    return f"{link.state}{f', {link.cause}' if link.cause else ''}"


def _line(event: Event) -> str:
    from kama.monitor.trace import describe

    at = datetime.fromtimestamp(event.at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return sanitize("  ".join(filter(None, (at, event.node, f"{event.kind:<9}", event.uuid, describe(event)))))


def _json(event: Event) -> str:
    import msgspec

    return as_json_line(msgspec.to_builtins(event))
