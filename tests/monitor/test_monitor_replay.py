"""ReplaySource: a recording played, paused, stepped through and sought in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import eventually
from test_monitor_recording import Session, knowledge
from watching_support import Watching

from kama.errors import KamaError, SettingsError
from kama.monitor.replay_source import SPEED_MAX, SPEED_MIN, ReplaySource
from kama.monitor_protocol import Sub, Trace

FAST = SPEED_MAX
SECONDS = 30


@pytest.fixture
def session(tmp_path: Path) -> Session:
    session = Session(tmp_path / "a.kamarec")
    for _ in range(SECONDS):
        session.second()
    session.recorder.close()
    return session


@pytest.fixture
async def paused(session: Session) -> AsyncIterator[tuple[ReplaySource, Watching]]:
    source = ReplaySource(session.recorder.path)
    source.pause()
    async with Watching(source) as watching:
        await eventually(lambda: watching.store.sources)
        yield source, watching


def accepted(watching: Watching) -> int:
    node = watching.store.nodes.get("n1")
    return node.counters.accepted if node else 0


async def test_played_to_its_end_all_is_known_and_it_stays(session: Session) -> None:
    source = ReplaySource(session.recorder.path, speed=FAST)
    async with Watching(source) as watching:
        await eventually(lambda: source.is_at_end)
        await eventually(lambda: knowledge(watching.store) == knowledge(session.store))
        assert source.now_ms() == source.recording.end_ms
        source.pause()
        source.seek(source.recording.start_ms)
        await eventually(lambda: accepted(watching) == 0)


async def test_it_keeps_the_pace_of_the_recording_times_its_speed(session: Session) -> None:
    source = ReplaySource(session.recorder.path, speed=50)
    async with Watching(source) as watching:
        await eventually(lambda: watching.store.nodes)
        while not source.is_at_end:
            before, count = source.now_ms(), len(watching.frames)
            await eventually(lambda count=count: len(watching.frames) > count or source.is_at_end)
            newest = max(each.frame_ms for each in watching.store.sources.values())
            assert newest <= source.now_ms() and source.now_ms() >= before


async def test_paused_nothing_moves(paused: tuple[ReplaySource, Watching]) -> None:
    source, watching = paused
    before, count = source.now_ms(), len(watching.frames)
    source.step(0)
    await eventually(lambda: len(watching.frames) > count)  # it had its turn
    assert source.now_ms() == before and accepted(watching) == 0


async def test_it_goes_on_from_where_it_paused(paused: tuple[ReplaySource, Watching]) -> None:
    source, watching = paused
    source.speed = FAST
    source.resume()
    await eventually(lambda: accepted(watching) == sum(range(SECONDS + 1)))


async def test_one_step_is_one_frame_forwards_and_back(paused: tuple[ReplaySource, Watching]) -> None:
    source, watching = paused
    source.step(1)  # from what was known to the first delta
    source.step(1)
    await eventually(lambda: accepted(watching) == 1)
    source.step(3)
    await eventually(lambda: accepted(watching) == 1 + 2)
    source.step(-3)
    await eventually(lambda: accepted(watching) == 1)
    assert source.is_paused


async def test_steps_end_at_the_ends(paused: tuple[ReplaySource, Watching]) -> None:
    source, watching = paused
    source.step(10_000)
    await eventually(lambda: accepted(watching) == sum(range(SECONDS + 1)))
    source.step(-10_000)
    await eventually(lambda: accepted(watching) == 0)
    assert source.now_ms() == source.recording.start_ms


async def test_a_moment_is_found(paused: tuple[ReplaySource, Watching], session: Session) -> None:
    source, watching = paused
    source.seek(session.node.now_ms)
    await eventually(lambda: knowledge(watching.store)["clients"] == session.node.clients)
    source.seek(0)
    await eventually(lambda: accepted(watching) == 0)
    source.seek(2**60)
    await eventually(lambda: accepted(watching) == sum(range(SECONDS + 1)))
    assert source.now_ms() == source.recording.end_ms


async def test_its_speed_has_bounds_and_does_not_move_it(paused: tuple[ReplaySource, Watching]) -> None:
    source, _ = paused
    before = source.now_ms()
    source.speed = 1e9
    assert source.speed == SPEED_MAX
    source.speed = 0
    assert source.speed == SPEED_MIN and source.now_ms() == before


async def test_a_recording_is_asked_in_vain(paused: tuple[ReplaySource, Watching]) -> None:
    source, _ = paused
    await source.subscribe(Sub(interval_ms=1_000))
    source.retry_now()
    with pytest.raises(KamaError, match="this is a recording"):
        await source.request(Trace(request="1", uuid="1"))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    with pytest.raises(SettingsError, match="expected a recording"):
        ReplaySource(tmp_path / "a")
