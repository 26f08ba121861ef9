"""Other nodes as they were heard last: up, silent for too long, forgotten, back."""

from __future__ import annotations

from kama.monitor_protocol import Node
from kama.server.watch.neighbours import Neighbours


class Listening:
    def __init__(self) -> None:
        self.now = 0.0
        self.neighbours = Neighbours("n1", lambda: self.now)

    def hear(self, *nodes: Node, after: float = 0.0, deaf: bool = False) -> dict[str, str]:
        """The states by name, once that much time has passed and these nodes are known."""
        self.now += after
        self.neighbours.see(nodes, deaf=deaf)
        return {node.name: node.state for node in self.neighbours.nodes}


def said(beat_ms: int, name: str = "n2", **details: object) -> Node:
    return Node(name=name, epoch="e1", beat_ms=beat_ms, **details)  # type: ignore[arg-type]


def test_a_node_that_speaks_is_up_whatever_its_clock_says() -> None:
    listening = Listening()
    for beat in range(10):
        assert listening.hear(said(beat), after=3) == {"n2": "up"}


def test_this_node_is_not_its_own_neighbour() -> None:
    assert Listening().hear(said(1, "n1"), said(1, "n2")) == {"n2": "up"}


def test_a_silent_node_is_gone_and_keeps_its_last_numbers() -> None:
    listening = Listening()
    listening.hear(said(1, connections=7))
    assert listening.hear(said(1, connections=7), after=9) == {"n2": "up"}
    assert listening.hear(after=2) == {"n2": "gone"}
    assert [node.connections for node in listening.neighbours.nodes] == [7]


def test_a_node_that_is_gone_is_forgotten_after_ten_minutes() -> None:
    listening = Listening()
    listening.hear(said(1))
    listening.hear(after=20)
    assert listening.hear(after=500) == {"n2": "gone"}
    assert listening.hear(after=100) == {}


def test_a_node_that_speaks_again_is_up_again() -> None:
    listening = Listening()
    listening.hear(said(1))
    listening.hear(after=20)
    assert listening.hear(said(2), after=20) == {"n2": "up"}


def test_silence_means_nothing_while_nobody_can_be_heard() -> None:
    listening = Listening()
    listening.hear(said(1))
    assert listening.hear(said(1), after=60, deaf=True) == {"n2": "up"}
    assert listening.hear(said(1), after=5) == {"n2": "up"}
    assert listening.hear(said(1), after=6) == {"n2": "gone"}
