"""What is typed into a form, what came of it, and what is known of the message that was sent with one."""

from __future__ import annotations

from fake_source import live
from textual.widgets import Input
from tui_dashboard import Open

from kama.monitor_protocol import Send
from kama.tui.screens.dialogs import Form
from kama.tui.screens.trace import TraceScreen

SENT = "2125235801066311680"


async def test_a_form_begins_in_its_first_field_and_typing_there_replaces_what_it_holds(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("m", *"U7", "tab", *"G8", "tab", *"hello", "enter")
        (send,) = [frame for frame in it.source.sent if isinstance(frame, Send)]
        assert (send.send_id, send.receive_id, send.content) == ("U7", "G8", "hello")


async def test_a_message_that_was_sent_can_be_traced_from_its_form(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("m", "enter", *"U1", "enter", "enter")
        assert "t: trace it" in it.text
        await it.press("t")
        await it.until(lambda: isinstance(it.app.screen, TraceScreen))
        assert isinstance(it.app.screen, TraceScreen) and it.app.screen.uuid == SENT
        await it.press("escape")
        assert it.app.screen is it.app.monitor_screen  # the form is not there any more


async def test_nothing_can_be_typed_once_it_is_done(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("x", "enter", "enter")
        assert all(field.disabled for field in it.app.screen.query(Input))
        await it.press("t")  # no message came of it
        assert isinstance(it.app.screen, Form)
        await it.press("enter")
        assert not isinstance(it.app.screen, Form)


async def test_a_trace_that_nodes_have_forgotten_shows_what_came_by_here(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.source.forgets = True
        await it.press("t", *SENT, "enter")
        await it.until(lambda: "its first steps are not kept any more" in it.text)
        assert "accepted" in it.text and "U000633 to U000096" in it.text


async def test_of_a_message_nothing_is_said_that_is_not_known(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.source.forgets = True
        await it.press("t", *"1", "enter")
        await it.until(lambda: "not kept any more" in it.text)
        assert "0B" not in it.text and "#0" not in it.text


async def test_the_id_of_a_screen_about_one_message_can_be_copied_without_a_row(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        it.source.forgets = True
        await it.press("t", *"1", "enter")
        await it.until(lambda: "not kept any more" in it.text)
        await it.press("y")
        assert it.app.clipboard == "1"


async def test_the_log_says_that_a_filter_hides_some_of_it(dashboard: Open) -> None:
    async with dashboard(*live(), filter="user=U1") as it:
        await it.press("6")
        assert "only what passes the filter user=U1" in it.text


async def test_the_keys_of_the_help_stay_in_view(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("question_mark", *"jjjjjjjjjj")
        assert "Esc: close" in it.text


async def test_a_screen_over_another_says_the_way_back(dashboard: Open) -> None:
    async with dashboard(*live()) as it:
        await it.press("2", "enter")
        assert "Esc Back" in it.text
