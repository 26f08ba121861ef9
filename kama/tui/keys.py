"""What can be done on every screen, and by which key: footer, help and command palette are made from this.

Plain keys only: what holds Ctrl belongs to tmux, screen and the line discipline. The ids are what a person can give
other keys to.
"""

from __future__ import annotations

from textual.binding import Binding, BindingType

# Key, screen, what it is called where there is little room, and in full.
SCREENS: tuple[tuple[str, str, str, str], ...] = (
    ("1", "overview", "Over", "Overview"),
    ("2", "clients", "Clients", "Clients, and who was one"),
    ("3", "messages", "Msgs", "Messages: all, failed, unsent"),
    ("4", "queues", "Queues", "Queues and partitions"),
    ("5", "nodes", "Nodes", "Nodes"),
    ("6", "log", "Log", "Log: faults, actions, links"),
)

MONITOR_KEYS: list[BindingType] = [
    *(
        Binding(key, f"app.go('{name}')", short, tooltip=full, id=f"screen.{name}")
        for key, name, short, full in SCREENS
    ),
    Binding(
        "slash",
        "filter",
        "Filter",
        tooltip="Filter connections, events and messages",
        key_display="/",
        id="view.filter",
    ),
    Binding("p", "app.pause", "Pause", tooltip="Freeze the view, or go on", id="view.pause"),
    Binding("f", "faults", "Faults only", show=False, id="view.faults"),
    Binding("s", "sort", "Sort by the next column", show=False, id="view.sort"),
    Binding("S", "reverse", "Reverse the order", show=False, id="view.reverse"),
    Binding("o", "lock", "Keep the rows where they are", show=False, id="view.lock"),
    Binding("exclamation_mark", "app.cause", "Go to the cause", show=False, key_display="!", id="view.cause"),
    Binding("plus,equals_sign", "app.pace(True)", "Update more often", show=False, key_display="+", id="view.faster"),
    Binding("minus", "app.pace(False)", "Update less often", show=False, key_display="-", id="view.slower"),
    Binding("x", "kick", "Kick a user", show=False, id="do.kick"),
    Binding("m", "message", "Send a test message", show=False, id="do.message"),
    Binding("t", "trace", "Trace a message", show=False, id="do.trace"),
    Binding("D", "drain", "Drain the node", show=False, id="do.drain"),
    Binding("r", "app.retry", "Try to connect now", show=False, id="do.retry"),
    Binding("e", "export", "Export the table as CSV and JSON", show=False, id="keep.export"),
    Binding("w", "app.picture", "Save the screen as SVG", show=False, id="keep.picture"),
    Binding("y", "copy", "Copy the id", show=False, id="keep.copy"),
    Binding("escape", "app.leave", "Back", show=False, id="screen.back"),
    Binding("question_mark", "app.help", "Help", key_display="?", id="app.help"),
    Binding("colon", "app.command_palette", "Commands", show=False, key_display=":", id="app.palette"),
    Binding("q", "app.quit", "Quit", id="app.quit"),
]

# Of a screen that was opened over another: there, the way back has the place of what is seldom wanted.
DETAIL_KEYS: list[BindingType] = [
    Binding("p", "app.pause", "Pause", tooltip="Freeze the view, or go on", show=False, id="view.pause"),
    Binding("escape", "app.leave", "Back", key_display="Esc", id="screen.back"),
]

REPLAY_KEYS: list[BindingType] = [
    Binding("space", "app.replay_pause", "Replay: stop or go on", show=False, id="replay.pause"),
    Binding("right_square_bracket", "app.replay_step(1)", "Replay: a frame on", show=False, key_display="]",
            id="replay.step"),
    Binding("left_square_bracket", "app.replay_step(-1)", "Replay: a frame back", show=False, key_display="[",
            id="replay.step_back"),
    Binding("greater_than_sign", "app.replay_skip(60)", "Replay: a minute on", show=False, key_display=">",
            id="replay.minute"),
    Binding("less_than_sign", "app.replay_skip(-60)", "Replay: a minute back", show=False, key_display="<",
            id="replay.minute_back"),
    Binding("T", "app.ask_replay_time", "Replay: go to a time", show=False, id="replay.seek"),
]  # fmt: skip

GROUPS: tuple[tuple[str, str], ...] = (
    ("screen", "Screens"),
    ("table", "In a table"),
    ("view", "What is shown"),
    ("do", "Do"),
    ("keep", "Take along"),
    ("replay", "In a recording"),
    ("app", "Program"),
)
