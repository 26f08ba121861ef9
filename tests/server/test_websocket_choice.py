"""Which transport a node takes: what it is told to, or the fastest that is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support import make_settings

from kama.errors import SettingsError
from kama.server.node_server import websocket_class
from kama.server.transport.sansio_socket import SansIOSocket


@pytest.fixture
def without_picows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picows", None)
    monkeypatch.delitem(sys.modules, "kama.server.transport.picows_socket", raising=False)
    monkeypatch.delitem(sys.modules, "kama.server.transport.frame_parser", raising=False)


def socket_maker(tmp_path: Path, name: str) -> Any:
    return websocket_class(make_settings(tmp_path, server={"websocket": name})).args[0]


@pytest.mark.parametrize("name", ["auto", "picows"])
def test_picows_is_taken_where_it_is_installed(tmp_path: Path, name: str) -> None:
    pytest.importorskip("picows")
    from kama.server.transport.picows_socket import PicowsSocket

    assert socket_maker(tmp_path, name).func is PicowsSocket


def test_websockets_is_taken_when_asked_for(tmp_path: Path) -> None:
    assert socket_maker(tmp_path, "websockets") is SansIOSocket


def test_a_node_does_without_picows(without_picows: None, tmp_path: Path) -> None:
    assert socket_maker(tmp_path, "auto") is SansIOSocket


def test_a_node_that_is_to_have_picows_says_how_to_get_it(without_picows: None, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"pip install 'kama\[fast\]'") as refused:
        websocket_class(make_settings(tmp_path, server={"websocket": "picows"}))
    assert refused.value.field == "server.websocket"
