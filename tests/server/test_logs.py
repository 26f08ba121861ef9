"""Logs: one JSON object a line for machines, text for people, and no secrets of ours in either."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from kama.server.logs import configure_logs


@pytest.fixture(autouse=True)
def leave_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_one_json_object_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    structlog.get_logger("kama.test").info("stored", user="U1", uuid=7, text="a\nb")
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "stored", "level": "info", "logger": "kama.test", "user": "U1", "uuid": 7, "text": "a\nb"}


def test_below_the_level_nothing_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning")
    log = structlog.get_logger("kama.test")
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(KeyError):
        configure_logs("chatty")


@pytest.mark.parametrize("name", ["uvicorn.access", "uvicorn.error", "sqlalchemy", "aiosqlite", "websockets"])
def test_libraries_speak_from_warning_on(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """uvicorn logs whole URLs at info."""
    configure_logs("debug")
    library = logging.getLogger(name)
    library.info("GET /wss?client_id=U1")
    library.warning("something is %s", "wrong")
    assert [(line["event"], line["level"], line["logger"]) for line in lines(capsys)] == [
        ("something is wrong", "warning", name)
    ]


def test_a_traceback_is_one_field_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    with pytest.raises(ValueError, match="broken"):
        fail(structlog.get_logger("kama.test"))
    (line,) = lines(capsys)
    assert line["event"] == "failed"
    assert line["exception"].endswith("ValueError: broken")


def test_a_librarys_traceback_is_one_field_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    with pytest.raises(ValueError, match="broken"):
        fail(logging.getLogger("asyncio"))
    assert lines(capsys)[0]["exception"].endswith("ValueError: broken")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_shows_no_values_of_variables(capsys: pytest.CaptureFixture[str], style: Any) -> None:
    """They hold tokens and payloads; structlog shows them unless it is told otherwise."""
    configure_logs("info", style)
    with pytest.raises(ValueError, match="broken"):
        fail(structlog.get_logger("kama.test"))
    shown = capsys.readouterr().err
    assert "ValueError: broken" in shown
    assert "very secret" not in shown


def fail(log: Any) -> None:
    token = " ".join(("very", "secret"))
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
        assert token
        raise


def test_text_is_for_people_and_has_no_colours_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "text")
    structlog.get_logger("kama.test").info("connected", user="U1")
    shown = capsys.readouterr().err
    assert "connected" in shown
    assert "user=U1" in shown
    assert "\x1b" not in shown


def test_what_is_bound_to_the_context_is_in_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info")
    with structlog.contextvars.bound_contextvars(conn="c1"):
        structlog.get_logger("kama.test").info("first")
        logging.getLogger("other").warning("second")
    assert [line["conn"] for line in lines(capsys)] == ["c1", "c1"]


def test_configuring_again_replaces_what_was_before(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "text")
    configure_logs("info", "json")
    structlog.get_logger("kama.test").info("once")
    assert len(lines(capsys)) == 1
