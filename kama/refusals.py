"""What msgspec refused, in our words: the field, what was expected and what came, and never a payload."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kama.errors import BadParameter, KamaError

# All that decoding JSON raises.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_parts_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any_decoder = msgspec.json.Decoder()

_EXPECTED = re.compile(r"Expected (?P<expected>.*?)(?:, got .*?)?(?: - at `\$\.?(?P<path>[^`]*)`)?\Z", re.S)
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_OUT_OF_RANGE = re.compile(r"(?:Integer value|Number) out of range(?: - at `\$\.?(?P<path>[^`]*)`)?")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")


def explain(
    error: msgspec.ValidationError, raw: Any, kind: type[KamaError] = BadParameter, **details: Any
) -> KamaError:
    """msgspec's refusal in our words: the field, what was expected and what came."""
    text = str(error)
    if missing := _MISSING.search(text):
        field = missing["field"]
        return kind(f"expected the field {field}, got none", field=field, **details)
    if unknown := _UNKNOWN.search(text):
        field = unknown["field"]
        return kind(f"expected no field {field}: it is unknown here", field=field, **details)
    if beyond := _OUT_OF_RANGE.match(text):
        field = _first_name(beyond["path"])
        return kind("expected a number that fits into 64 bits, got one that does not", field=field, **details)
    if matched := _EXPECTED.match(text):
        field = _first_name(matched["path"])
        came = raw.get(field) if isinstance(raw, dict) and field else raw
        expected = matched["expected"].replace("`", "")
        return kind(f"expected {expected}, got {describe(came)}", field=field, **details)
    return kind(text, **details)


def refuse_nul(text: str, field: str, kind: type[BadParameter] = BadParameter, **details: Any) -> None:
    """Raises `kind` for text that PostgreSQL would not take."""
    if "\0" in text:
        raise kind("expected text without U+0000, which no database column holds, got one", field=field, **details)


def _first_name(path: str | None) -> str | None:
    return re.split(r"[.\[]", path or "")[0] or None


def describe(value: Any) -> str:
    """What came, in a few words and never at length: a payload has no place in an error."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}" if abs(value) < 10**15 else "a very large number"
        case str():
            return repr(value) if len(value) <= 24 else f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
        case msgspec.Raw():
            return "a value that cannot be read"
        case _:
            return "an object"


def fields_of(data: bytes) -> dict[str, Any]:
    """What a JSON object holds, for an error about it. Raises what msgspec raises when it is not one."""
    return {name: _peek(part) for name, part in _parts_decoder.decode(data).items()}


def _peek(part: msgspec.Raw) -> Any:
    """The value, or its bytes where it nests too deep or is no number that fits."""
    try:
        return _any_decoder.decode(part)
    except UNREADABLE:
        return part
