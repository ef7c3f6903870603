"""What every engine in this process gets from its tokenizer: counts, ids, text, pairs to score."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from memserve.errors import ContextOverflow, InvalidInput
from memserve.protocol import Capabilities, Completion, Prompt, Raw, Request, Sample, ScorePrompts, Usage
from memserve.tokens.prompts import Prepared, Prompts


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


class Tokenizing:
    """A base for engines that keep their `Prompts` as `_prompts`."""

    _prompts: Prompts
    capabilities: Capabilities
    _unscored = 0
    """Positions of the context that the engine cannot use while it scores."""

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, template and BOS included."""
        return len(self._prompts.encode(prompt))

    def encode(self, text: str) -> list[int]:
        """The text's own token ids, none added; special tokens that it spells out are taken as such."""
        return self._prompts.bare(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        known = self._prompts.known(ids)
        tokenizer = self._prompts.tokenizer
        return str(tokenizer.decode(known, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @property
    def prefix_token(self) -> int | None:
        """What a text's first token is predicted from: BOS, or else EOS."""
        return self._prompts.opening

    @property
    def score_window(self) -> int | None:
        """The most tokens that can stand before one that is scored; None: no limit."""
        context = self._prompts.context
        return None if context is None else context - self._unscored

    def _apart(self, request: Request, prepared: Prepared, sample: Sample) -> tuple[Sample, int | None]:
        """A sample of an engine that knows text alone, with thought, calls and the thought's tokens apart."""
        if not prepared.parted:
            return sample, None
        text, ids = self._prompts.detokenizer(request, prepared, live=True), sample.token_ids or ()
        for count, token in enumerate(ids, 1):
            text.push(token)
            if text.stopped:  # stop strings are for the answer alone, so the engine was not told of them
                told = sample.logprobs and sample.logprobs[:count]
                return text.sample("stop", ids[:count], told), text.reasoning_tokens
        return text.sample(sample.finish_reason, ids, sample.logprobs), text.reasoning_tokens

    def _joined(self, request: Request, parts: Sequence[tuple[Sample, int | None]],
                used: Usage) -> Completion:  # fmt: skip
        """One answer of its samples, each with the tokens of its thought."""
        samples = tuple(sample for sample, _ in parts)
        samples *= request.n // len(samples)  # n greedy answers are one answer, which engines give once
        first, thoughts = samples[0], [spent for _, spent in parts if spent is not None]
        return Completion(
            **{part.name: getattr(first, part.name) for part in fields(Sample)},
            usage=replace(used, reasoning_tokens=sum(thoughts) if thoughts else None),
            samples=samples if len(samples) > 1 else (), model=self.capabilities.model, request_id=request.id,
        )  # fmt: skip

    def _pairs(self, pairs: Sequence[ScorePrompts]) -> list[ScorePair]:
        return [tokenize_pair(self._prompts, *pair, most=self.score_window) for pair in pairs]
