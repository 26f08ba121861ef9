"""FanInSource: several nodes as one source, and those that they tell of as well, if that is wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from types import TracebackType

from kama.client import Token
from kama.errors import CannotConnect
from kama.monitor.frames import Item, Left
from kama.monitor.link import LinkState
from kama.monitor.live_source import LiveSource
from kama.monitor.source import REQUEST_TIMEOUT, Request, Source, wall_ms
from kama.monitor_protocol import Delta, Node, Outcome, Snap, Sub

SOURCES_MAX = 50
# Items on their way to whoever iterates: more would only be old.
_WAITING_MAX = 64


class FanInSource:
    """`discover` makes the source of an address (`http://host:port`); with it every node that a node lists is
    watched too, and left when no node lists it any more."""

    def __init__(self, sources: Sequence[LiveSource], discover: Callable[[str], LiveSource] | None = None) -> None:
        self._given = tuple(sources)
        self._sources = {source.name: source for source in sources}
        self._discover = discover
        self._sub: Sub | None = None
        self._listed: dict[str, dict[str, Node]] = {}  # by source, then by the name of the node
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self._items: asyncio.Queue[Item] = asyncio.Queue(_WAITING_MAX)
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> FanInSource:
        await self._tasks.__aenter__()
        for source in self._given:
            self._start(source)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pump in self._pumps.values():
            pump.cancel()
        if kind is not None and not issubclass(kind, asyncio.CancelledError):
            kind = error = traceback = None  # it goes on as it is, in no group
        await self._tasks.__aexit__(kind, error, traceback)

    async def __aiter__(self) -> AsyncGenerator[Item, None]:
        while True:
            yield await self._items.get()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def now_ms(self) -> int:
        return wall_ms()

    async def subscribe(self, sub: Sub) -> None:
        self._sub = sub
        for source in list(self._sources.values()):
            await source.subscribe(sub)

    async def request(self, request: Request, *, source: str = "", timeout: float = REQUEST_TIMEOUT) -> Outcome:
        if source:
            if source not in self._sources:
                raise CannotConnect(f"{source} is not watched")
            return await self._sources[source].request(request, timeout=timeout)
        connected = [each for each in self._sources.values() if each.link.is_current]
        if not connected:
            raise CannotConnect("no node is connected")
        return await connected[0].request(request, timeout=timeout)

    def retry_now(self) -> None:
        for source in self._sources.values():
            source.retry_now()

    # --- the sources

    def _start(self, source: LiveSource) -> None:
        self._sources[source.name] = source
        self._pumps[source.name] = self._tasks.create_task(self._pump(source), name=f"watch {source.name}")

    async def _pump(self, source: LiveSource) -> None:
        async with source, contextlib.aclosing(aiter(source)) as items:
            async for item in items:
                await self._items.put(item)
                if self._discover is not None and isinstance(item.frame, Snap | Delta):
                    self._note(source, item.frame)
                    await self._follow(self._discover)

    def _note(self, source: LiveSource, frame: Snap | Delta) -> None:
        nodes = {node.name: node for node in frame.nodes}
        self._listed[source.name] = nodes if isinstance(frame, Snap) else self._listed.get(source.name, {}) | nodes

    async def _follow(self, discover: Callable[[str], LiveSource]) -> None:
        """Only once every given source is known by its node's name, or failed: none is to be watched twice."""
        if any(each.hello is None and each.link.state is LinkState.CONNECTING for each in self._given):
            return
        await self._leave_unlisted()
        watched = {each.hello.node for each in self._sources.values() if each.hello is not None}
        for address in self._addresses(self._listed, but=watched):
            if address not in self._sources and len(self._sources) < SOURCES_MAX:
                source = discover(address)
                if self._sub is not None:
                    await source.subscribe(self._sub)
                self._start(source)

    def _addresses(self, listing: Iterable[str], but: Collection[str] = ()) -> list[str]:
        """Where the nodes are that those sources list."""
        return [
            f"http://{node.address}"
            for name in listing
            for node in self._listed.get(name, {}).values()
            if node.address and node.state != "gone" and node.name not in but
        ]

    async def _leave_unlisted(self) -> None:
        current = [name for name, source in self._sources.items() if source.link.is_current]
        listed = {source.name for source in self._given} | set(self._addresses(current))
        for name in [name for name in self._sources if name not in listed and name not in current]:
            del self._sources[name]
            self._listed.pop(name, None)
            self._pumps.pop(name).cancel()
            await self._items.put(Item(name, Left(), wall_ms()))


def watch_nodes(servers: Sequence[str], token: Token, sub: Sub, *, follow_all: bool = False) -> Source:
    """The nodes at these URLs as one source; with `follow_all` those that they list, too. To be entered."""

    def watch(server: str) -> LiveSource:
        return LiveSource(server, token, sub)

    if len(servers) == 1 and not follow_all:
        return watch(servers[0])
    return FanInSource([watch(server) for server in servers], watch if follow_all else None)
