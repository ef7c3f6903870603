"""A context and its continuation as token ids: where one ends and the other begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memserve.errors import ContextOverflow, InvalidInput

if TYPE_CHECKING:
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


def tokenize_pair(prompts: Prompts, context: str, continuation: str) -> ScorePair:
    """Tokenize both together, so that the boundary falls where the tokenizer puts it.

    Spaces at the context's end belong to the continuation. An empty context is one BOS (or EOS).
    """
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    whole = prompts.plain(context + continuation)
    start = len(prompts.plain(context)) if context else len(prompts.bos)
    if start == 0:
        whole, start = [_opening(prompts), *whole], 1
    if start >= len(whole):
        raise InvalidInput("a continuation has no tokens of its own")
    limit = prompts.context
    if limit is not None and len(whole) > limit:
        raise ContextOverflow(tokens=len(whole), limit=limit)
    return ScorePair(tuple(whole), start)


def _opening(prompts: Prompts) -> int:
    for token in (prompts.tokenizer.bos_token_id, prompts.tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise InvalidInput("an empty context needs a tokenizer with a BOS or EOS token")
