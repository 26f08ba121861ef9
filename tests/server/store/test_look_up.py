"""A look at the store on the loop, which may never hold it up."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from kama.server.store.look_up import _FEW, QuickLook


class Clock:
    """Goes on by `step` each time it is read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "kama.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript("""
            CREATE TABLE conversation (conversation TEXT PRIMARY KEY, last_seq INTEGER);
            CREATE TABLE cursor (user_id TEXT, conversation TEXT, sent_seq INTEGER);
        """)
        for number in range(_FEW + 1):
            key = f"U1_V{number:02}"
            connection.execute("INSERT INTO conversation VALUES (?, 5)", (key,))
            connection.executemany(
                "INSERT INTO cursor VALUES (?, ?, 3)",
                [(user, key) for user in ("Umany", "Usome", "Uone")[: 1 if number == _FEW else 2 if number else 3]],
            )
        connection.commit()
    return file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def look(database: Path, clock: Clock) -> Iterator[QuickLook]:
    look = QuickLook(str(database), clock)
    yield look
    look.close()


def test_positions_of_few_conversations_are_told(look: QuickLook) -> None:
    assert look.positions("Unobody") == []
    assert look.positions("Uone") == [("U1_V00", 3, 5)]
    assert len(look.positions("Usome") or []) == _FEW


def test_many_conversations_are_left_to_the_thread(look: QuickLook) -> None:
    assert look.positions("Umany") is None


def test_a_lock_is_not_waited_for(look: QuickLook, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert look.positions("Uone") is None
        assert look._connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
        other.execute("ROLLBACK")
    assert look.positions("Uone") is not None


def test_a_slow_disk_holds_the_loop_for_a_hundredth_of_its_time(look: QuickLook, clock: Clock) -> None:
    began, waited, looks = clock.now, 0.0, 0
    clock.step = 0.1  # as long as a look takes
    while clock.now < began + 1000:
        before = clock.now
        if look.positions("Uone") is not None:
            looks += 1
            waited += 0.1
        else:
            clock.now = before + 0.05
    assert looks > 50 and waited < 0.0103 * (clock.now - began)
    clock.step, clock.now = 0.0, clock.now + 100
    assert look.positions("Uone") is not None, "once the disk is awake"


def test_a_slow_look_now_and_then_is_no_slow_disk(look: QuickLook, clock: Clock) -> None:
    for _ in range(100):
        clock.step = 0.005
        assert look.positions("Uone") is not None and look.positions("Uone") is not None
        clock.step, clock.now = 0.0, clock.now + 1.0
        assert look.positions("Uone") is not None


def test_it_writes_nothing(look: QuickLook) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        look._connection.execute("DELETE FROM cursor")
