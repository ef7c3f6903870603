"""How many requests are in flight: learnt from how long answers take."""

from __future__ import annotations

from math import ceil, inf, log

CEILING = 256
"""The most in flight where the caller names no number."""
FIRST = 4
"""In flight until the first answer: fewer than the five refusals that lock some providers' keys."""
SHARE = 1 / 8
"""Of its time limit an answer may take, before more in flight must pay."""
RISES = ((4.0, 1 / 4), (2.0, 1 / 4))
"""While it has only risen: so many times as many, where an answer may then take at most this share."""
LAST_RISE, FULL_GAIN = (2.0, 0.95), 0.8
GAIN = 0.2
"""What more in flight must bring of what it could: 1 with slots to spare, 0 where it only makes a queue."""
APART = 1.5
"""Numbers in flight are compared where one is so many times the other."""
PROBE = 1.25
LEAST = 4
"""Answers that a judgement needs."""
BEARABLE = 0.6
"""Of its time limit the last of a queue may wait, were the answers that came of late all that ever come."""
REMEMBERED = 16


class Concurrency:
    """Compares what answers take at this number in flight with what they took at fewer."""

    def __init__(self, most: int | None) -> None:
        self._most = most or CEILING
        self._opening = most
        self._opened = False
        self._rising = True
        self._levels: dict[int, float] = {}
        self._changed_at = self._lowered_at = -inf
        self._seconds, self._answers, self._used = 0.0, 0, 0
        self._since, self._came = inf, 0
        self.now = min(FIRST, self._most)

    def answered(self, sent: float, now: float, limit: float, in_flight: int) -> None:
        """An answer came to what was `sent` then, within the `limit` of its time."""
        seconds = now - sent
        self._used = max(self._used, in_flight)
        self._came += 1
        if not self._opened:
            self._since = min(self._since, sent)
            self._open(seconds, now, limit)
        elif sent >= self._changed_at:
            self._seconds += seconds
            self._answers += 1
            mean = self._seconds / self._answers
            enough = self.now // 2 if mean <= limit * SHARE / 2 else self.now  # the first have not queued
            if self._answers >= max(LEAST, enough):
                self._judge(mean, now, limit)

    def lower(self, sent: float, now: float) -> bool:
        """Halve, once for all that were in flight together; whether it was this one that halved."""
        if sent <= self._lowered_at:
            return False
        self._lowered_at = now
        self._rising = False
        self._levels.clear()
        self._set(self.now // 2, now)
        return True

    def _open(self, seconds: float, now: float, limit: float) -> None:
        """Each of the first answers tells more of what the server bears."""
        wanted = self._opening or int(FIRST * self._factor(seconds / limit, 1.0))
        self._opened = self._came >= min(FIRST, self._most)
        bearable = self._bearable(now, limit)
        if self._opened or bearable >= wanted:
            self._opened = True
            self._set(min(wanted, max(self.now, bearable)), now)
        else:
            self.now = min(self._most, max(self.now, bearable))

    def _judge(self, seconds: float, now: float, limit: float) -> None:
        seconds = max(seconds, 1e-6)
        gain, fewer = self._gain(seconds)
        self._remember(seconds)
        comfort = limit * SHARE
        factor = self._factor(seconds / limit, gain)
        if self._used < self.now / PROBE:  # something else holds the run back: nothing was learned
            self._set(self.now, now)
        elif factor > PROBE or seconds * factor <= comfort or (gain >= GAIN and seconds * factor < limit):
            more = max(self.now + 1, int(self.now * factor))
            self._set(min(more, max(self.now, self._bearable(now, limit))), now)
        elif seconds > comfort and gain < GAIN:
            self._rising = False
            fit = max(comfort, PROBE * fewer) / seconds
            self._set(ceil(self.now * min(0.9, max(0.5, fit))), now)
        else:
            self._set(self.now, now)

    def _bearable(self, now: float, limit: float) -> int:
        """So many in flight that none times out even if more bring no more answers a second."""
        return int(self._came / max(1e-6, now - self._since) * limit * BEARABLE)

    def _factor(self, share: float, gain: float) -> float:
        """How many times as many to try: at first so many that nothing times out even if they only queue."""
        if not self._rising:
            return PROBE
        for factor, most in RISES if gain < FULL_GAIN else (*RISES, LAST_RISE):
            if share * factor <= most:
                return factor
        return PROBE

    def _gain(self, seconds: float) -> tuple[float, float]:
        """What more in flight has brought, of what it could; and the seconds of an answer at fewer."""
        levels = [level for level in self._levels if level * APART <= self.now]
        if not levels:
            return 1.0, 0.0
        fewer = max(levels)
        return 1 - log(seconds / self._levels[fewer]) / log(self.now / fewer), self._levels[fewer]

    def _remember(self, seconds: float) -> None:
        self._levels.pop(self.now, None)
        self._levels[self.now] = seconds
        if len(self._levels) > REMEMBERED:
            del self._levels[next(iter(self._levels))]

    def _set(self, number: int, now: float) -> None:
        self.now = max(1, min(self._most, number))
        self._changed_at = self._since = now
        self._seconds, self._answers, self._used, self._came = 0.0, 0, 0, 0
