"""Progress that people like: a bar and one live line on a terminal or in a notebook, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from html import escape

from memserve.cli import tell
from memserve.run.store.results import Counts

LIVE_SECONDS, LOG_SECONDS = 0.25, 15.0
SPAN_SECONDS = 60.0
"""Rates and time left come from the last minute, not from the whole night."""
_log = logging.getLogger("memserve.run")


class Progress:
    """`shown`: True prints plain lines on stderr where it is no terminal, None logs them, False is silent."""

    def __init__(self, counts: Counts, total: int | None, shown: bool | None) -> None:
        self._counts = counts
        self._total = total
        self._shown = shown
        self._marks: deque[tuple[float, int, int]] = deque()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._shown is not False:
            terminal = sys.stderr is not None and sys.stderr.isatty()
            live = self._notebook if "ipykernel" in sys.modules else self._live if terminal else None
            self._thread = threading.Thread(target=live or self._plain, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join(timeout=5)

    def line(self, now: float) -> str:
        """done, failed, tokens, tokens/s, cost so far, time left"""
        counts = self._counts
        self._mark(now)
        of = f"/{self._total}" if self._total is not None else ""
        parts = [f"{counts.settled - counts.failed}{of} done", f"{counts.failed} failed"]
        parts += [
            f"{_short(counts.prompt_tokens + counts.completion_tokens)} tokens",
            f"{self._speed():.0f} tokens/s",
        ]
        if counts.usd is not None:
            parts.append(f"${counts.usd:.2f}")
        left = self._left()
        if left is not None:
            parts.append(f"{_clock(left)} left")
        return ", ".join(parts)

    def _mark(self, now: float) -> None:
        self._marks.append((now, self._counts.settled, self._counts.completion_tokens))
        while len(self._marks) > 2 and now - self._marks[0][0] > SPAN_SECONDS:
            self._marks.popleft()

    def _speed(self) -> float:
        (begin, _, before), (end, _, after) = self._marks[0], self._marks[-1]
        return (after - before) / (end - begin) if end > begin else 0.0

    def _left(self) -> float | None:
        (begin, before, _), (end, after, _) = self._marks[0], self._marks[-1]
        if self._total is None or after == before:
            return None
        return max(0, self._total - after) * (end - begin) / (after - before)

    def _plain(self) -> None:
        self._mark(time.monotonic())
        while not self._ended.wait(LOG_SECONDS):
            line = self.line(time.monotonic())
            if self._shown:
                tell(line)
            else:
                _log.info("%s", line)

    def _notebook(self) -> None:
        """One output of the cell, written again; needs no widgets."""
        from IPython.display import HTML, display

        shown = display(HTML(self._bar()), display_id=True)
        while not self._ended.wait(LIVE_SECONDS):
            shown.update(HTML(self._bar()))
        shown.update(HTML(self._bar()))

    def _bar(self) -> str:
        of = "" if self._total is None else f' value="{self._counts.settled}" max="{self._total}"'
        return f"<progress{of}></progress> {escape(self.line(time.monotonic()))}"

    def _live(self) -> None:
        from rich import progress
        from rich.console import Console

        columns = progress.BarColumn(24), progress.TextColumn("{task.description}", markup=False)
        with progress.Progress(
            *columns, console=Console(stderr=True), auto_refresh=False, transient=True
        ) as bar:
            task = bar.add_task("", total=self._total)
            while not self._ended.wait(LIVE_SECONDS):
                line = self.line(time.monotonic())
                bar.update(task, completed=self._counts.settled, description=line, refresh=True)


def _short(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
