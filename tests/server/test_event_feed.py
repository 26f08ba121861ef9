"""What one watcher gets of the journal: so many a second, all failures, and a word about the rest."""

from __future__ import annotations

import pytest

from kama.errors import BadParameter
from kama.monitor_protocol import EventQuery
from kama.server.events import Journal
from kama.server.watch.event_feed import EventFeed
from tests.server.server_builders import build_change


class Feeding:
    def __init__(self, at: int | None = None, **query: object) -> None:
        self.now = 0.0
        self.journal = Journal()
        self.feed = EventFeed(self.journal, "n1", EventQuery(**query), at, lambda: self.now)  # type: ignore[arg-type]

    def note(self, count: int) -> None:
        for number in range(count):
            self.journal.risen("sent", [build_change(number + 1, user_id=f"U{number % 10}")])


async def test_no_more_than_asked_for_come_in_a_second_and_the_rest_is_counted() -> None:
    feeding = Feeding(per_second=40)
    await feeding.feed.take()
    feeding.now += 0.5
    feeding.note(100)
    taken = await feeding.feed.take()
    assert 0 < len(taken.items) <= 20
    assert (len(taken.items) + taken.sampled_out, taken.lost) == (100, 0)


async def test_failures_and_what_people_did_come_on_top() -> None:
    feeding = Feeding(per_second=0)
    feeding.note(10)
    feeding.journal.alert("store: failing")
    feeding.journal.dropped("U1", "c1", "full")
    feeding.journal.action("Uadmin", "kicked U2")
    taken = await feeding.feed.take()
    assert ([event.kind for event in taken.items], taken.sampled_out) == (["alert", "dropped", "action"], 10)


async def test_nothing_comes_twice() -> None:
    feeding = Feeding()
    feeding.note(10)
    assert len((await feeding.feed.take()).items) == 10
    assert (await feeding.feed.take()).items == []


async def test_only_what_passes_the_filter_comes_and_counts() -> None:
    feeding = Feeding(filter="user:U3")
    feeding.note(1500)
    feeding.journal.alert("store: failing")
    feeding.now += 1
    taken = await feeding.feed.take()
    assert {event.user_id for event in taken.items} == {"U3"}
    assert (len(taken.items), taken.sampled_out) == (150, 0)


async def test_a_filter_that_lets_much_through_is_sampled_too() -> None:
    feeding = Feeding(filter="user:U", per_second=10)
    feeding.note(100)
    taken = await feeding.feed.take()
    assert 0 < len(taken.items) <= 10
    assert len(taken.items) + taken.sampled_out == 100


async def test_what_the_ring_lost_is_said() -> None:
    feeding = Feeding(at=0)
    feeding.note(20_005)
    assert (await feeding.feed.take()).lost == 5


async def test_a_new_watcher_begins_with_the_last_hundred() -> None:
    journal = Journal()
    for number in range(300):
        journal.alert(str(number))
    taken = await EventFeed(journal, "n1", EventQuery()).take()
    assert [event.text for event in taken.items] == [str(number) for number in range(200, 300)]
    assert taken.lost == 0


def test_a_wrong_filter_is_refused() -> None:
    with pytest.raises(BadParameter, match="nothing behind|expected a field"):
        Feeding(filter="colour:red")
