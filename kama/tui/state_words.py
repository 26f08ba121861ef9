"""What is watched and how it is connected, in words: for the status line, the banner and the first run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kama.monitor.link import Link, LinkState
from kama.tui.cells import clock, number, size, span, uptime
from kama.tui.link_words import name_of, next_try, remedy
from kama.tui.look import Tone

if TYPE_CHECKING:
    from kama.tui.app import MonitorApp
    from kama.tui.feed import Feed

Part = tuple[str, Tone]
_BANNER_MAX = 6
_CURRENT = (LinkState.LIVE, LinkState.SLOW)


def status(monitor: MonitorApp, now_ms: int) -> tuple[list[Part], list[str], str]:
    """Badges, facts and the age that ends the line."""
    feed = monitor.feed
    link = feed.link
    badges: list[Part] = [_replay_badge(monitor) if feed.replay is not None else name_of(link.state)]
    if monitor.paused:
        badges.append((f"‖ PAUSED +{feed.unseen:,} new", "accent"))
    if (recorded := monitor.recorded_bytes) is not None:
        badges.append((f"◉ REC {size(recorded)}", "bad"))
    age_ms = feed.age_ms
    tail = "" if age_ms is None or feed.replay is not None else f"age {_age(age_ms)}"
    return badges, _facts(feed, link, now_ms), tail


def _replay_badge(monitor: MonitorApp) -> Part:
    replay = monitor.feed.replay
    if replay is None:
        return "» REPLAY", "accent"
    state = "stopped" if replay.is_paused else "at its end" if replay.is_at_end else f"×{replay.speed:g}"
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(monitor.feed.now_ms() / 1000))
    return f"» REPLAY {at} {state}", "accent"


def _facts(feed: Feed, link: Link, now_ms: int) -> list[str]:
    watched, totals = feed.watched, feed.store.totals()
    facts: list[str] = []
    if watched is not None and watched.hello is not None:
        facts += [watched.hello.node, watched.hello.mode]
    sources = list(feed.store.sources.values())
    if len(sources) > 1:
        facts.append(f"{sum(source.is_current for source in sources)}/{len(sources)} links")
    if feed.has_data:
        facts.append(f"{totals.nodes} node{'' if totals.nodes == 1 else 's'}")
        facts.append(f"{number(totals.connections)} online")
        if watched is not None and watched.hello is not None and link.is_current:
            facts.append(f"up {uptime(feed.node_now_ms - watched.hello.started_ms)}")
        if link.is_current:
            facts.append(f"{1000 / link.interval_ms:g} Hz")
    elif sources:
        facts.append(sources[0].name)
    if feed.filter:
        facts.insert(1 if facts else 0, f"filter {feed.filter}")
    return facts


def _age(age_ms: int) -> str:
    return f"{age_ms / 1000:.1f}s" if age_ms < 10_000 else span(age_ms)


# --- above what is not of now --------------------------------------------------------------------------


def banner(feed: Feed, now_ms: int) -> list[list[Part]]:
    """Nothing while all is of now, or in a recording."""
    if feed.replay is not None:
        return []
    lines: list[list[Part]] = []
    for source in feed.store.sources.values():
        link = source.link
        if link.state in _CURRENT:
            continue
        name, tone = name_of(link.state)
        who = source.node or source.name
        since = f" since {clock(link.since_ms)} ({span(now_ms - link.since_ms)})" if link.since_ms else ""
        lines.append([(f"{name} {who}{since}", tone), (f": {link.cause}" if link.cause else "", "")])
        shown = f"last data {span(now_ms - source.frame_ms)} old" if source.frame_ms else "no data yet"
        lines.append([(f"  {shown} · {next_try(link, now_ms)}", "dim")])
        lines += [[(f"  {advice}", "accent")] for advice in remedy(link.state)]
        if len(lines) >= _BANNER_MAX:
            break
    return lines


def welcome(feed: Feed, now_ms: int) -> list[list[Part]]:
    """The whole screen before the first data came: what is tried, and what a person can do."""
    link, watched = feed.link, feed.watched
    server = watched.name if watched is not None else next(iter(feed.options.servers), "")
    lines: list[list[Part]] = [[("", "")]]
    if link.state is LinkState.GONE:
        lines.append([(f"  No kama node at {server}", "strong"), (f" ({_reason(link, server)}).", "")])
        lines += [[("", "")], *_advice()]
    elif link.state in (LinkState.CONNECTING, *_CURRENT):
        lines.append([(f"  Connecting to {server} …", "strong")])
    else:
        name, tone = name_of(link.state)
        lines += [[(f"  {name}  ", tone), (server, "strong")], [("", "")], [(f"  {link.cause}", "")]]
        lines += [[(f"  {advice}", "accent")] for advice in remedy(link.state)]
    if link.state not in (LinkState.CONNECTING, *_CURRENT):
        lines += [[("", "")], [(f"  {next_try(link, now_ms)} · q: quit", "dim")]]
    if feed.options.token_note:
        lines += [[("", "")], [(f"  {feed.options.token_note}", "dim")]]
    return lines


def _reason(link: Link, server: str) -> str:
    """The cause without what the line says already."""
    return link.cause.removeprefix(f"no kama node answers at {server}: ").lower() or "no answer"


def _advice() -> list[list[Part]]:
    return [
        [("  Start one                      ", ""), ("kama serve", "accent")],
        [("  See it with made-up traffic    ", ""), ("kama demo", "accent")],
        [("  Another address                ", ""), ("kama monitor -s URL", "accent")],
    ]
