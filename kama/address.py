"""Where a node is: its URL, checked."""

from __future__ import annotations

from urllib.parse import urlsplit

from kama.errors import SettingsError
from kama.text import conceal

DEFAULT_SERVER = "http://127.0.0.1:8000"


def check_server(server: str, source: str) -> str:
    """The URL without a slash at the end. Raises SettingsError when it is no address of a node."""
    expected = f"server ({source}): expected a node's URL such as {DEFAULT_SERVER}"
    try:
        parts = urlsplit(server.strip())
        hostname, _ = parts.hostname, parts.port  # the port is read when it is asked for
    except ValueError as error:
        raise SettingsError(f"{expected}, got {conceal(server)[:100]!r}: {error}", field="server") from None
    if parts.username is not None:
        raise SettingsError(
            f"{expected}, got one with a user's name in it", field="server", hint="a node takes tokens: --token-file"
        )
    if parts.scheme not in ("http", "https") or not hostname or parts.query or parts.fragment:
        hint = None if "://" in server else f"did you mean http://{server}?"
        raise SettingsError(f"{expected}, got {server[:100]!r}", field="server", hint=hint)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
