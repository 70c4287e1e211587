"""Numbers for people, in few characters."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def size(count: float) -> str:
    """Bytes with three digits or so: `0 B`, `999 B`, `1.2 kB`, `35 MB`; thousands, as in a rate."""
    unit = 0
    while abs(count) >= 999.5 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    digits = 1 if unit and abs(count) < 9.95 else 0
    return f"{count:.{digits}f} {_UNITS[unit]}"


def rate(count: float | None) -> str:
    """Something a second; `-` where it is not known."""
    if count is None:
        return "-"
    return f"{count:.1f}" if count < 99.95 else f"{count:.0f}"


def throughput(count: float | None) -> str:
    """Bytes a second; `-` where it is not known."""
    return "-" if count is None else f"{size(count)}/s"


def duration(seconds: float) -> str:
    """The two largest units: `8 s`, `3 min 20 s`, `5 h 4 min`, `12 d 3 h`."""
    whole = max(0, int(seconds))
    minutes, left = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
