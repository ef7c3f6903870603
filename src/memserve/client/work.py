"""The requests of one call of `generate`, and what becomes of their answers."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from memserve.client import constraint
from memserve.errors import MemserveError
from memserve.protocol import Completion, Request, Usage


class Work:
    """The requests of one call, with the errors of prompts that were refused beforehand."""

    def __init__(self, items: Sequence[Request | MemserveError], keep: bool, *, many: bool) -> None:
        self._items = items
        self._many = many
        self.keep = keep
        self.requests = [item for item in items if isinstance(item, Request)]

    def again(self, answers: Sequence[Completion]) -> dict[int, Request]:
        """What must be asked once more, by its place."""
        asked = zip(self.requests, answers, strict=True)
        found = {place: constraint.again(*pair) for place, pair in enumerate(asked)}
        return {place: request for place, request in found.items() if request is not None}

    def take(self, answers: list[Completion], again: Mapping[int, Request],
             more: Sequence[Completion]) -> None:  # fmt: skip
        """Put second answers in their places; they cost what both did."""
        for (place, request), answer in zip(again.items(), more, strict=True):
            self.requests[place] = request
            answers[place] = replace(answer, usage=_sum(answers[place].usage, answer.usage))

    def result(self, answers: Sequence[Completion]) -> Completion | list[Completion]:
        """One answer to one prompt, a list to a list."""
        if not self._many:
            return self._judged(self.requests[0], answers[0])
        incoming = iter(zip(self.requests, answers, strict=True))
        return [
            self._judged(*next(incoming)) if isinstance(item, Request) else Completion(text=None, error=item)
            for item in self._items
        ]

    def _judged(self, request: Request, answer: Completion) -> Completion:
        error = constraint.broken(request, answer)
        if error is None:
            samples = tuple(constraint.parsed(request, sample) for sample in answer.samples)
            return replace(constraint.parsed(request, answer), samples=samples) if request.schema else answer
        if not self.keep:
            raise error
        return replace(answer, text=None, samples=(), error=error)


def _sum(one: Usage, other: Usage) -> Usage:
    names = [part.name for part in fields(Usage)]
    counts = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return Usage(**{name: None if None in pair else sum(pair) for name, pair in counts.items()})
