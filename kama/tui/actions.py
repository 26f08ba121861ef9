"""The forms that act on nodes and users: what each asks, checks and reports."""

from __future__ import annotations

from collections.abc import Callable

from kama.monitor_protocol import Drain, Kick, Send
from kama.protocol import is_group_id, is_user_id
from kama.tui.feed import Feed, new_request
from kama.tui.screens.dialogs import Done, Field, Form

_ID = "and 1 to 19 of A-Z a-z 0-9 _ -"


def _check_user(text: str) -> str:
    return "" if is_user_id(text) else f"expected a user's id, U {_ID}, got {text[:24] or 'nothing'}"


def _check_receiver(text: str) -> str:
    known = is_user_id(text) or is_group_id(text)
    return "" if known else f"expected a user's or a group's id, U or G {_ID}, got {text[:24] or 'nothing'}"


def kick_form(feed: Feed, user_id: str, connection: str) -> Form:
    """Closes a user's connections on all nodes, also of one whom the filter hides: the id is typed or taken over."""
    client = feed.store.clients.get(connection)
    about = ["Closes all connections of the user with 4002, on all nodes. Clients that keep to the rules stay away."]
    if client is not None:
        about.append(f"{client.user_id} on {client.node}: {client.depth} of {client.capacity} waiting")

    async def submit(values: dict[str, str]) -> Done:
        kick = Kick(request=new_request(), user_id=values["user"], reason=values["reason"])
        closed = (await feed.request(kick)).closed or 0
        if not closed:
            return Done(f"{values['user']} had no connection: nothing was closed")
        return Done(f"✔ closed {closed} connection{'' if closed == 1 else 's'} of {values['user']} with 4002")

    fields = [
        Field("user", "User", user_id, "U123456", _check_user),
        Field("reason", "Reason, which the user is told", "", "optional", _short),
    ]
    return Form("Kick a user", about, fields, submit, "kick")


def _short(text: str) -> str:
    return "" if len(text) <= 100 else f"expected at most 100 characters, got {len(text)}"


def message_form(feed: Feed, sender: str) -> Form:
    """The same form asked again for the same text stores it once."""
    request = new_request()

    async def submit(values: dict[str, str]) -> Done:
        send = Send(request=request, send_id=values["from"], receive_id=values["to"], content=values["text"])
        outcome = await feed.request(send)
        where = f"{outcome.conversation} #{outcome.seq}"
        return Done(f"✔ stored as {outcome.uuid}, {where}", outcome.uuid or "")

    fields = [
        Field("from", "From", sender, "U123456", _check_user),
        Field("to", "To a user or a group", "", "U654321 or G1", _check_receiver),
        Field("text", "Text", "test", "", lambda text: "" if text else "expected a text, got nothing"),
    ]
    return Form("Send a test message", ["It is a real one: the receiver is shown it."], fields, submit, "send")


def drain_form(feed: Feed) -> Form:
    """Asks for the node's name: whoever types it knows which one it is."""
    watched = feed.watched
    name = watched.node if watched is not None else ""

    async def submit(values: dict[str, str]) -> Done:
        await feed.source.request(Drain(request=new_request()), source=watched.name if watched else "")
        return Done(f"✔ {name} drains: it takes no more logins, tells its clients, and ends")

    check = lambda text: "" if text == name else f"expected {name}, got {text[:40] or 'nothing'}"  # noqa: E731
    about = [f"Shuts {name} down, as SIGTERM does. Its clients go to other nodes."]
    return Form("Drain the node", about, [Field("name", f"Type its name, {name}", "", "", check)], submit, "drain")


def ask_form(title: str, label: str, value: str, check: Callable[[str], str]) -> Form:
    """One question; the answer is the form's result."""
    return Form(title, [], [Field("answer", label, value, "", check)], None, "go")
