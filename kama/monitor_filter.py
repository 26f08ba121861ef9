"""The filter language of the monitor: terms with a blank between; all of them must hold.

alice            any text of the item holds it (case does not matter)
user:U12         that field holds it
node=n1          that field is it
queue>80         a number; also >= < <= and =
idle>30s         a duration
!term            the term does not hold
slow, dropping, idle, failed     words for what is asked most
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from kama.errors import BadParameter
from kama.monitor_protocol import FAILURES
from kama.units import parse_duration

Predicate = Callable[[Any], bool]

_TERM = re.compile(r"(?P<name>[a-z_]+)(?P<operator>:|>=|<=|=|>|<)(?P<value>.+)")
_TEXTS: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "send_id", "receive_id"),
    "from": ("send_id",),
    "to": ("receive_id",),
    "group": ("receive_id", "conversation"),
    "conv": ("conversation",),
    "node": ("node",),
    "device": ("device",),
    "address": ("address",),
    "id": ("id", "connection"),
    "uuid": ("uuid",),
    "kind": ("kind",),
    "error": ("error", "text"),
}
_NUMBERS: Mapping[str, str] = {
    "queue": "depth",
    "high": "high",
    "in": "in_rate",
    "out": "out_rate",
    "dropped": "dropped",
    "refused": "refused",
    "size": "size",
    "seq": "seq",
    "code": "code",
    "members": "members",
    "online": "online",
    "type": "type",
}
_AGES: Mapping[str, str] = {"idle": "last_ms", "since": "since_ms"}
_DURATIONS: Mapping[str, str] = {"took": "took_ms"}
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "=": lambda one, two: one == two,
    ">": lambda one, two: one > two,
    "<": lambda one, two: one < two,
    ">=": lambda one, two: one >= two,
    "<=": lambda one, two: one <= two,
}
_IDLE = "60s"
_WORDS: Mapping[str, Predicate] = {
    "slow": lambda item: 0 < _number(item, "capacity") <= _number(item, "depth") / 0.8,
    "dropping": lambda item: _number(item, "dropped") > 0,
    "failed": lambda item: getattr(item, "kind", "") in FAILURES,
}
FIELDS = (*_TEXTS, *_NUMBERS, *_AGES, *_DURATIONS)
WORDS = (*_WORDS, "idle")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def parse_filter(text: str, now_ms: Callable[[], int] = _wall_ms) -> Predicate:
    """What a filter says, for items of any kind: a field that an item lacks does not hold. Ages count to `now_ms`.

    Raises BadParameter, which says what was expected and what came.
    """
    terms = [_parse_term(term, now_ms) for term in text.split()]
    if not terms:
        return lambda item: True
    if len(terms) == 1:
        return terms[0]
    return lambda item: all(term(item) for term in terms)


def _parse_term(term: str, now_ms: Callable[[], int]) -> Predicate:
    if term.startswith("!"):
        if len(term) == 1:
            raise BadParameter("expected a term behind !, got nothing", field="filter")
        inner = _parse_term(term[1:], now_ms)
        return lambda item: not inner(item)
    if word := _WORDS.get(term):
        return word
    if term == "idle":
        return _field("idle", ">", _IDLE, now_ms)
    matched = _TERM.fullmatch(term)
    if matched is None:
        return _any_text(term.casefold())
    return _field(matched["name"], matched["operator"], matched["value"], now_ms)


def _field(name: str, operator: str, value: str, now_ms: Callable[[], int]) -> Predicate:
    if names := _TEXTS.get(name):
        wanted = value.casefold()
        if operator == ":":
            return lambda item: any(wanted in str(getattr(item, each, "")).casefold() for each in names)
        if operator == "=":
            return lambda item: any(str(getattr(item, each, "")).casefold() == wanted for each in names)
        raise BadParameter(f"expected {name}:text or {name}=text, got {name}{operator}", field="filter")
    if operator == ":":
        operator = "="
    compare = _COMPARE[operator]
    if name in _NUMBERS:
        return _compared(_NUMBERS[name], _number, compare, _parse_number(name, value))
    if name in _AGES:
        return _compared(_AGES[name], _age_reader(now_ms), compare, _parse_age(name, value))
    if name in _DURATIONS:
        return _compared(_DURATIONS[name], _number, compare, _parse_age(name, value))
    raise BadParameter(f"expected a field of {', '.join(FIELDS)}, got {name[:24]!r}", field="filter")


def _compared(
    attribute: str, read: Callable[[Any, str], float], compare: Callable[[float, float], bool], with_what: float
) -> Predicate:
    return lambda item: hasattr(item, attribute) and compare(read(item, attribute), with_what)


def _parse_number(name: str, value: str) -> float:
    if re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", value) is None:
        raise BadParameter(f"expected a number behind {name}, got {value[:24]!r}", field="filter")
    return float(value)


def _parse_age(name: str, value: str) -> float:
    try:
        return parse_duration(value) * 1000
    except ValueError as error:
        raise BadParameter(f"{name}: {error}", field="filter") from None


def _any_text(wanted: str) -> Predicate:
    names = sorted({each for names in _TEXTS.values() for each in names})
    return lambda item: any(wanted in str(getattr(item, name, "")).casefold() for name in names)


def _number(item: Any, attribute: str) -> float:
    value = getattr(item, attribute, 0)
    return float(value) if isinstance(value, int | float) else 0.0


def _age_reader(now_ms: Callable[[], int]) -> Callable[[Any, str], float]:
    """Milliseconds since then. Who has never sent a frame is idle since it came."""
    return lambda item, attribute: now_ms() - (_number(item, attribute) or _number(item, "since_ms"))
