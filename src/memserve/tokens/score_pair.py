"""A context and its continuation as token ids: where one ends and the other begins."""

from collections.abc import Sequence
from dataclasses import dataclass

from memserve.errors import ContextOverflow, InvalidInput
from memserve.protocol import Prompt, Raw
from memserve.tokens.prompts import Prompts


@dataclass(frozen=True)
class ScorePair:
    """Token ids of context and continuation together, and where the continuation starts."""

    tokens: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        """Tokens of the continuation."""
        return len(self.tokens) - self.start

    @property
    def read(self) -> tuple[int, ...]:
        """What the model must read: nothing is predicted from the last token."""
        return self.tokens[:-1]


def tokenize_pair(prompts: Prompts, context: Prompt, continuation: str | Sequence[int], *,
                  most: int | None) -> ScorePair:  # fmt: skip
    """The ids of both; `most` tokens can be read.

    Plain texts are tokenized together, so that the boundary falls where the tokenizer puts it, and spaces
    at the context's end belong to the continuation. An empty context is one BOS (or EOS). The ids of a
    conversation, or ids that were given, stay as they are.
    """
    if isinstance(context, Raw):
        context = context.text
    if isinstance(context, str) and isinstance(continuation, str):
        whole, start = _texts(prompts, context, continuation)
    else:
        before = prompts.plain(context) if isinstance(context, str) else prompts.encode(context)
        whole, start = [*before, *_after(prompts, context, before, continuation)], len(before)
    if start == 0:
        if prompts.opening is None:
            raise InvalidInput("an empty context needs a tokenizer with a BOS or EOS token")
        whole, start = [prompts.opening, *whole], 1
    if start >= len(whole):
        raise InvalidInput("a continuation has no tokens of its own")
    if most is not None and len(whole) - 1 > most:
        raise ContextOverflow(tokens=len(whole), limit=most)
    return ScorePair(tuple(whole), start)


def _texts(prompts: Prompts, context: str, continuation: str) -> tuple[list[int], int]:
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    start = len(prompts.plain(context)) if context else len(prompts.bos)
    return prompts.plain(context + continuation), start


def _after(prompts: Prompts, context: Prompt, before: list[int], words: str | Sequence[int]) -> list[int]:
    """The continuation's ids after ids that are fixed."""
    if not isinstance(words, str):
        return prompts.known(words)
    written = prompts.written(context)
    whole = [] if written is None else prompts.bare(written + words)
    return whole[len(before) :] if whole[: len(before)] == before else prompts.bare(words)
