"""The look-ahead between the thread that reads requests and the loop that asks: bounded in items and text."""

import threading
from collections import deque
from collections.abc import Callable

from memserve.run.requests.item import Item

MOST_ITEMS = 1024
MOST_CHARACTERS = 16 << 20


class RequestQueue:
    """`put` blocks while enough is waiting; `take_all` never does."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._waiting: deque[Item] = deque()
        self._characters = 0
        self._change = threading.Condition()
        self._closed = False
        self.finished = False
        """Nothing more will be put."""

    @property
    def waiting(self) -> bool:
        """Whether anything can be grabbed."""
        return bool(self._waiting)

    @property
    def exhausted(self) -> bool:
        """Nothing is waiting, and nothing more will come."""
        return self.finished and not self._waiting

    @property
    def replete(self) -> bool:
        """Whether all that fits, or all that there is, is waiting."""
        return self.finished or self._is_full()

    def put(self, item: Item) -> bool:
        """Add an item, waiting for space; False once nobody will take it."""
        with self._change:
            while self._is_full() and not self._closed:
                self._change.wait(1.0)
            if self._closed:
                return False
            self._waiting.append(item)
            self._characters += item.characters
            first = len(self._waiting) == 1
        if first:
            self._notify()
        return True

    def finish(self) -> None:
        """Say that nothing more will come."""
        self.finished = True
        self._notify()

    def take_all(self) -> list[Item]:
        """Everything that is waiting."""
        with self._change:
            items = list(self._waiting)
            self._waiting.clear()
            self._characters = 0
            self._change.notify_all()
        return items

    def close(self) -> None:
        """Take no more; whoever waits in `put` goes on at once."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()

    def _is_full(self) -> bool:
        return len(self._waiting) >= MOST_ITEMS or self._characters >= MOST_CHARACTERS
