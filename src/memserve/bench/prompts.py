"""Prompts of a wanted length in tokens, no two alike: no prefix cache helps where none is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from memserve.protocol import Request
from memserve.speed.workloads import Workload

_TEXT = (
    "the of and to in is that for it was on are as with his they at be this from have or by one had not "
    "but what all were when we there can an your which their said if do will each about how up out them "
    "then she many some so these would other into has more her two like him see time could no make than "
    "first been its who now people my made over did down only way find use may water long little very "
    "after words called just where most know"
)
WORDS = tuple(_TEXT.split())
"""Common enough that tokenizers have each as one token."""


class Prompts:
    """The requests of a workload, drawn by a seed; those of a file as they stand, again and again."""

    def __init__(self, workload: Workload, seed: int, file: str | None = None) -> None:
        self._workload = workload
        self._seed = seed
        self._drawn = 0
        self._tokens_a_word, self._template = 1.0, 0.0
        self.given = _of_file(file) if file else ()

    def fit(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        """Learns from two (words, tokens) what a word and what the chat template takes."""
        (words, tokens), (fewer, least) = sorted((first, second), reverse=True)
        if words > fewer and tokens > least:
            self._tokens_a_word = (tokens - least) / (words - fewer)
            self._template = tokens - words * self._tokens_a_word

    def probes(self) -> tuple[int, int]:
        """Words of two prompts that `fit` can learn from."""
        whole = max(2, round(self._workload.prompt_tokens))
        return whole, max(1, whole // 2)

    def draw(self, count: int) -> list[Request]:
        """So many further requests."""
        if self.given:
            return [self.given[index % len(self.given)] for index in range(count)]
        self._drawn += -self._drawn % self._workload.shared  # nobody before shares these prefixes
        return [self._next() for _ in range(count)]

    def words(self, count: int, mark: str) -> str:
        """So many words; other ones under another mark."""
        return " ".join(Random(f"{self._seed} {mark}").choices(WORDS, k=count))

    def _next(self) -> Request:
        number, load = self._drawn, self._workload
        self._drawn += 1
        prefix = self._count(load.prefix_tokens, self._template) if load.prefix_tokens else 0
        own = self._count(load.input_tokens, 0.0 if prefix else self._template)
        texts = [self.words(prefix, f"prefix {number // load.shared}"), self.words(max(1, own), str(number))]
        return Request(prompt=" ".join(filter(None, texts)), max_tokens=max(1, round(load.output_tokens)))

    def _count(self, tokens: float, template: float) -> int:
        return max(0, round((tokens - template) / self._tokens_a_word))


def _of_file(name: str) -> Sequence[Request]:
    from memserve.run.requests import item, source

    return tuple(item.read(value, index, {}).request for index, _, value in source.entries(name))
