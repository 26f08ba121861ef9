"""Durations and sizes as people write them: `10s`, `1h30m`, `250ms`; `64KiB`, `1MB`, `512`."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})\s*([a-z]*)", re.ASCII | re.IGNORECASE)
# Longer than any wait, and short enough for every clock and every JavaScript number that it ends up in.
MAX_DURATION = 3650 * _SECONDS["d"]


def parse_duration(text: str) -> float:
    """Seconds. A bare number is seconds. Raises ValueError, which says what was expected."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    else:
        raise ValueError(f"expected a duration such as 10s, 5m or 1h30m, got {text[:24]!r}")
    if seconds > MAX_DURATION:
        raise ValueError(f"expected a duration of at most {format_duration(MAX_DURATION)}, got {text[:24]!r}")
    return seconds


def parse_size(text: str) -> int:
    """Bytes. A bare number is bytes. Raises ValueError, which says what was expected."""
    matched = _SIZE.fullmatch(text.strip())
    if matched is None or matched[2].lower() not in _BYTES:
        raise ValueError(f"expected a size such as 512, 64KiB or 1MB, got {text[:24]!r}")
    return int(matched[1]) * _BYTES[matched[2].lower()]


def format_duration(seconds: float) -> str:
    """The shortest exact writing down to a millisecond: `1h30m`, `45s`, `250ms`, `0s`."""
    left = round(seconds * 1000)
    parts: list[str] = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_size(count: int) -> str:
    """The shortest exact writing in powers of 1024: `64KiB`, `1MiB`, `1000B`."""
    for unit in ("gib", "mib", "kib"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit[0].upper()}iB"
    return f"{count}B"
