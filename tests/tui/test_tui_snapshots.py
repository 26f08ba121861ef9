"""Every screen in every state, at two sizes, as plain text that a person can review."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_source import NOW_MS, SERVER, empty, events, link, live
from tui_dashboard import Open

from kama.monitor.link import LinkState
from kama.monitor_protocol import Events

SCREENS = {"overview": "1", "clients": "2", "messages": "3", "queues": "4", "nodes": "5", "log": "6"}
GONE = f"no kama node answers at {SERVER}: Connection refused"


STATES = {
    "live": link(),
    "stale": link(LinkState.STALE, cause="no frame comes"),
    "gone": link(LinkState.GONE, cause=GONE, attempt=7, next_try_ms=NOW_MS + 4_000),
    "auth failed": link(LinkState.AUTH_FAILED, cause="the signature is wrong", attempt=2, next_try_ms=NOW_MS + 9_000),
}
SMALL, LARGE = (80, 24), (120, 40)


def in_sizes(*sizes: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("size", sizes, ids=lambda size: f"{size[0]}x{size[1]}")


# What does not depend on the size is looked at in the larger one less often.
rarely_large = in_sizes(SMALL, pytest.param(LARGE, marks=pytest.mark.drill))


@in_sizes(SMALL, LARGE)
async def test_every_screen_looks_as_reviewed_in_every_state(
    dashboard: Open, snap: Callable[[str, str], None], size: tuple[int, int]
) -> None:
    async with dashboard(*live(), size=size) as it:
        for screen, key in SCREENS.items():
            await it.press(key)
            for state, changed in STATES.items():
                it.source.put(changed)
                await it.draw()
                snap(f"{screen} {state} {size[0]}x{size[1]}", it.text)


@rarely_large
async def test_every_screen_looks_as_reviewed_while_it_is_paused(
    dashboard: Open, snap: Callable[[str, str], None], size: tuple[int, int]
) -> None:
    async with dashboard(*live(), size=size) as it:
        for screen, key in SCREENS.items():
            await it.press(key)
            await it.press("p")
            it.source.put(Events(seq=4, items=events(), sampled_out=4_000))
            await it.draw()
            snap(f"{screen} paused {size[0]}x{size[1]}", it.text)
            await it.press("p")


@rarely_large
async def test_every_screen_of_an_idle_node_says_what_to_try(
    dashboard: Open, snap: Callable[[str, str], None], size: tuple[int, int]
) -> None:
    async with dashboard(*empty(), size=size) as it:
        for screen, key in SCREENS.items():
            await it.press(key)
            snap(f"{screen} empty {size[0]}x{size[1]}", it.text)


@pytest.mark.parametrize("state", ["connecting", "gone", "auth failed", "forbidden", "incompatible", "expired"])
async def test_before_any_data_the_whole_screen_says_what_to_do(
    dashboard: Open, snap: Callable[[str, str], None], state: str
) -> None:
    cause = GONE if state == "gone" else f"the node says: {state}"
    first = link(LinkState(state), cause="" if state == "connecting" else cause, next_try_ms=NOW_MS + 4_000)
    async with dashboard(first) as it:
        snap(f"first run {state}", it.text)


@in_sizes((60, 20), (80, 16), (39, 24), (80, 9))
async def test_small_terminals_show_what_matters_most(
    dashboard: Open, snap: Callable[[str, str], None], size: tuple[int, int]
) -> None:
    async with dashboard(*live(), size=size) as it:
        snap(f"overview live {size[0]}x{size[1]}", it.text)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("user", ("2", "enter")),
        ("trace", ("3", "down", "down", "enter")),
        ("kick", ("x",)),
        ("message", ("m",)),
        ("drain", ("D",)),
        ("help", ("question_mark",)),
        ("filter", ("slash", "q", "u", "e", "u", "e", "greater_than_sign", "a")),
    ],
)
async def test_details_and_forms_look_as_reviewed(
    dashboard: Open, snap: Callable[[str, str], None], name: str, keys: tuple[str, ...]
) -> None:
    async with dashboard(*live()) as it:
        for key in keys:
            await it.press(key)
        snap(name, it.text)


async def test_without_unicode_everything_is_ascii(dashboard: Open, snap: Callable[[str, str], None]) -> None:
    async with dashboard(*live(), ascii=True) as it:
        text = it.text
        snap("overview ascii", text)
        assert text.isascii()
