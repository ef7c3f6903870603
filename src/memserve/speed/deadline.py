"""Deadlines as people say them: how long from now (`12h`) or until when (`tomorrow 9:00`)."""

import re
from datetime import datetime, timedelta

from memserve.errors import InvalidInput

UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}
LONGEST = 100 * 365 * 86400.0
HINT = "write 12h, 90m, 3d, 1h30m, seconds, 18:30, tomorrow 9:00 or 2026-11-21 09:00"


def seconds_of(word: str, now: datetime | None = None) -> float:
    """Seconds until a deadline; clock times are local, and one without a day is the next such time."""
    text = " ".join(word.strip().lower().split())
    found = _span(text)
    if found is None:
        found = _until(text, now or datetime.now().astimezone())
    if found is None or found > LONGEST:
        raise InvalidInput(f"not a deadline: {word[:40]!r}", hint=HINT)
    if found <= 0:
        raise InvalidInput(f"the deadline must lie ahead, not at {word[:40]!r}", hint=HINT)
    return found


def _span(text: str) -> float | None:
    """A length of time, where the text is one."""
    if not re.fullmatch(r"(\d+(\.\d+)?[dhms]?)+", text):
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text)
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _until(text: str, now: datetime) -> float | None:
    """Seconds to a moment, where the text is one."""
    clock = re.fullmatch(r"(?:(today|tomorrow) )?(?:at )?(\d{1,2}):(\d{2})", text)
    if clock is None:
        return _dated(text, now)
    day, hour, minute = clock.group(1), int(clock.group(2)), int(clock.group(3))
    if hour > 23 or minute > 59:
        return None
    there = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if day == "tomorrow" or (day is None and there <= now):
        there += timedelta(days=1)
    return (there - now).total_seconds()


def _dated(text: str, now: datetime) -> float | None:
    try:
        there = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=now.tzinfo)
    return (there - now).total_seconds()
