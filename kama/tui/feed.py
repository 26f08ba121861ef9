"""Feed: takes what a source brings into the store, and asks the nodes on a screen's behalf."""

from __future__ import annotations

import uuid
from collections import deque

from msgspec.structs import replace

from kama.errors import KamaError
from kama.monitor.findings import Level
from kama.monitor.frames import Item, Rewound
from kama.monitor.link import Link
from kama.monitor.options import MonitorOptions
from kama.monitor.recorder import Recorder
from kama.monitor.replay_source import ReplaySource
from kama.monitor.rules import Judge, Verdict
from kama.monitor.source import Request, Source
from kama.monitor.store import Changes, MonitorStore
from kama.monitor.watched import Watched
from kama.monitor_filter import Predicate, parse_filter
from kama.monitor_protocol import (
    INTERVAL_MS_MAX,
    INTERVAL_MS_MIN,
    ClientOrder,
    ClientQuery,
    EventQuery,
    Events,
    Outcome,
    Sub,
)
from kama.tui.cells import number
from kama.tui.curves import Curves, curves_of
from kama.tui.logbook import Logbook

_ROWS = 200
_EVENTS_PER_SECOND = 300
_RATE_MS = 3_000
_ALL = ~Changes.NONE


class EventRates:
    """How many events came and how many there were, over the last three seconds."""

    def __init__(self) -> None:
        self._taken: deque[tuple[int, int, int]] = deque(maxlen=100)

    def take(self, shown: int, happened: int, at_ms: int) -> None:
        self._taken.append((at_ms, shown, happened))

    def per_second(self, now_ms: int) -> tuple[float, float]:
        recent = [each for each in self._taken if 0 <= now_ms - each[0] <= _RATE_MS]
        seconds = _RATE_MS / 1000
        return sum(each[1] for each in recent) / seconds, sum(each[2] for each in recent) / seconds


class Feed:
    """What the screens draw, and what they ask for. `run` fills it until it is cancelled or a recording ends.

    It goes on while the view is paused; `unseen` counts the events that came since.
    """

    def __init__(self, source: Source, options: MonitorOptions) -> None:
        self.source = source
        self.options = options
        self.store = MonitorStore()
        self.logbook = Logbook()
        self.curves = Curves()
        self.verdict = Verdict(Level.OK)
        self.recorder: Recorder | None = None
        self.unseen = 0
        self.sampled_ms = 0  # when events were last left out
        self.sub = Sub(
            interval_ms=options.interval_ms,
            clients=ClientQuery(limit=_ROWS),
            events=EventQuery(per_second=_EVENTS_PER_SECOND),
        )
        self.predicate: Predicate = parse_filter(options.filter)
        self.filter = options.filter
        self._judge = Judge()
        self._rates = EventRates()
        self._changes = _ALL
        self._set_filter(options.filter)

    async def run(self) -> None:
        """Raises nothing of the nodes' own: what fails there comes as a Link."""
        await self.source.subscribe(self.sub)
        async for item in self.source:
            self._take(item)

    def _take(self, item: Item) -> None:
        if isinstance(item.frame, Rewound):
            self.logbook, self._rates = Logbook(), EventRates()
        self._changes |= self.store.apply(item.source, item.frame, item.at_ms)
        if self.recorder is not None:
            self.recorder.record(item)
        if isinstance(item.frame, Events):
            happened = len(item.frame.items) + item.frame.sampled_out + item.frame.lost
            self.unseen += happened
            if item.frame.sampled_out or item.frame.lost:
                self.sampled_ms = item.at_ms
            self._rates.take(len(item.frame.items), happened, item.at_ms)
            for event in item.frame.items:
                self.logbook.take_event(event)
        elif isinstance(item.frame, Link):
            self.logbook.take_link(item.source, item.frame, item.at_ms)

    @property
    def replay(self) -> ReplaySource | None:
        """The recording that is played, if it is one."""
        return self.source if isinstance(self.source, ReplaySource) else None

    @property
    def events_per_second(self) -> tuple[float, float]:
        """How many events came, and how many there were."""
        return self._rates.per_second(self.now_ms())

    def now_ms(self) -> int:
        """Unix ms, or where a replay is."""
        return self.source.now_ms()

    def take_changes(self) -> Changes:
        """What changed since the last time it was asked for; brings verdict and curves up to date."""
        changes, self._changes = self._changes, Changes.NONE
        self.verdict = self._judge.verdict(self.store, self.now_ms())
        if changes & (Changes.HISTORY | Changes.NODES):
            names = [name for name, node in self.store.nodes.items() if node.state != "gone"]
            self.curves = curves_of(self.store.points(name) for name in names)
        return changes

    # --- how it is connected

    @property
    def watched(self) -> Watched | None:
        """The source that stands for all: one that is connected if there is one, else the first that ever was."""
        sources = list(self.store.sources.values())
        for source in sources:
            if source.is_current:
                return source
        return next((source for source in sources if source.hello is not None), next(iter(sources), None))

    @property
    def link(self) -> Link:
        watched = self.watched
        return watched.link if watched is not None else Link()

    @property
    def is_current(self) -> bool:
        return any(source.is_current for source in self.store.sources.values())

    @property
    def has_data(self) -> bool:
        """Whether there is anything to show, of whatever age."""
        return any(source.chain.at_ms for source in self.store.sources.values())

    def rate(self, counter: str) -> str:
        """How fast a counter rises on all nodes together, per second; a dash when that is not known now."""
        return number(self.store.totals().rates[counter]) if self.is_current else "–"

    @property
    def age_ms(self) -> int | None:
        ages = [self.store.age_ms(name, self.now_ms()) for name in self.store.sources]
        return min((age for age in ages if age is not None), default=None)

    @property
    def node_now_ms(self) -> int:
        """What the clock of the watched node shows: its times are by that one."""
        return self.now_ms() + (self.watched.skew_ms if self.watched else 0)

    def may(self, action: str) -> str:
        """Why an action is not to be had now; empty when it is."""
        watched = self.watched
        if self.replay is not None:
            return "this is a recording: nothing can be done to it"
        if self.options.read_only:
            return "this monitor was started with --read-only"
        if not self.is_current or watched is None or watched.hello is None:
            return f"not while the link is {self.link.state}: what is shown is not of now"
        if action not in watched.hello.actions:
            return f"the role {watched.hello.role} may not {action}: it takes admin (kama monitor --admin)"
        return ""

    # --- what is asked of the nodes

    async def request(self, request: Request) -> Outcome:
        """Raises what the node answers, CannotConnect and TimedOut."""
        return await self.source.request(request)

    async def request_all(self, make: type[Request], **fields: str) -> list[Outcome]:
        """Ask every connected node. Raises the last refusal when none of them answers."""
        outcomes, refusal = [], None
        for name, watched in list(self.store.sources.items()):
            if watched.is_current:
                try:
                    outcomes.append(await self.source.request(make(request=new_request(), **fields), source=name))
                except KamaError as error:
                    refusal = error
        if refusal is not None and not outcomes:
            raise refusal
        return outcomes

    async def filter_by(self, text: str) -> None:
        """Raises BadParameter when the filter cannot be read."""
        self.predicate = parse_filter(text)
        self._set_filter(text)
        await self.source.subscribe(self.sub)

    async def order_by(self, order: ClientOrder, descending: bool) -> None:
        self.sub = replace(self.sub, clients=replace(self.sub.clients, sort=order, descending=descending))
        await self.source.subscribe(self.sub)

    async def pace(self, faster: bool) -> int:
        """Half or twice the interval; what it now is, in ms."""
        wanted = self.sub.interval_ms // 2 if faster else self.sub.interval_ms * 2
        self.sub = replace(self.sub, interval_ms=max(INTERVAL_MS_MIN, min(INTERVAL_MS_MAX, wanted)))
        await self.source.subscribe(self.sub)
        return self.sub.interval_ms

    def _set_filter(self, text: str) -> None:
        self.filter = text
        events = replace(self.sub.events, filter=text) if self.sub.events else None
        self.sub = replace(self.sub, clients=replace(self.sub.clients, filter=text), events=events)
        self._changes = _ALL


def new_request() -> str:
    return uuid.uuid4().hex
