"""The requests of one call of `generate`, and what becomes of their answers."""

from collections.abc import Sequence
from dataclasses import replace

from memserve.client import constraint
from memserve.errors import MemserveError
from memserve.protocol import Completion, Request


class Work:
    """The requests of one call, with the errors of prompts that were refused beforehand."""

    def __init__(self, items: Sequence[Request | MemserveError], keep: bool, *, many: bool) -> None:
        self._items = items
        self._many = many
        self.keep = keep
        self.requests = [item for item in items if isinstance(item, Request)]

    def result(self, answers: Sequence[Completion]) -> Completion | list[Completion]:
        """One answer to one prompt, a list to a list."""
        if not self._many:
            return self._judged(self.requests[0], answers[0])
        incoming = iter(answers)
        return [
            self._judged(item, next(incoming))
            if isinstance(item, Request)
            else Completion(text=None, error=item)
            for item in self._items
        ]

    def _judged(self, request: Request, answer: Completion) -> Completion:
        error = constraint.broken(request, answer)
        if error is None:
            return answer
        if not self.keep:
            raise error
        return replace(answer, text=None, samples=(), error=error)
