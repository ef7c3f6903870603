"""What a model reads: the tokens of texts, and prompts that stand before their answers with their own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Completion, Raw, Sample, TokenLogprob, Usage
from memserve.serve.endpoint import asked as asking
from memserve.serve.endpoint.asked import Asked

Said = TypeVar("Said", Completion, Sample)


@dataclass(frozen=True)
class Read:
    """A prompt as the model reads it; `hidden` tokens (a BOS) are none of the text's."""

    text: str
    ids: list[int]
    hidden: int

    @property
    def pair(self) -> tuple[list[int], list[int]]:
        """The first token that is shown, of which nothing is told, and what is told."""
        return self.ids[: self.hidden + 1], self.ids[self.hidden + 1 :]


def tokenize(generator: Any, body: dict[str, Any]) -> dict[str, Any]:
    """The ids of a text, with the BOS that its tokenizer adds; of messages only how many they are."""
    asking.only(body, "prompt", "messages", "add_special_tokens")
    special, context = asking.flag(body, "add_special_tokens", True), generator.capabilities.context
    if body.get("messages") is not None:
        return {"count": generator.count_tokens(body["messages"]), "max_model_len": context}
    if not isinstance(text := body.get("prompt"), str):
        raise InvalidInput("prompt is a text")
    ids = generator.encode(Raw(text) if special else text)
    return {"count": len(ids), "max_model_len": context, "tokens": ids}


def detokenize(generator: Any, body: dict[str, Any]) -> dict[str, Any]:
    """The text of token ids."""
    asking.only(body, "tokens")
    return {"prompt": generator.decode(body.get("tokens"))}


def unanswered(asked: Asked) -> bool:
    """Whether the prompts alone are wanted."""
    most = asked.settings.get("max_tokens")
    return asked.echo and type(most) is int and most == 0


def echoed(generator: Any, asked: Asked, answers: Sequence[Completion]) -> list[Completion]:
    """The answers with their prompts before them; where there are none, the prompts alone."""
    prompts = [_read(generator, one) for one in asked.prompts]
    if not answers:
        silent = (Sample("", "length"),) * asked.settings.get("n", 1)
        answers = [Completion("", "length", usage=Usage(len(one.ids), 0), samples=silent) for one in prompts]
    most = asked.settings.get("logprobs")
    told: list[Any] = [None] * len(prompts) if most is None else _told(generator, prompts, most)
    return [
        replace(
            _after(one, prompt, words), samples=tuple(_after(each, prompt, words) for each in one.samples)
        )
        for one, prompt, words in zip(answers, prompts, told, strict=True)
    ]


def _read(generator: Any, prompt: Any) -> Read:
    if not isinstance(prompt, Raw):
        return Read(generator.decode(prompt), prompt, 0)
    ids = generator.encode(prompt)
    return Read(prompt.text, ids, len(ids) - len(generator.encode(prompt.text)))


def _told(generator: Any, prompts: Sequence[Read], most: int) -> list[list[TokenLogprob]]:
    """Of each prompt every token; of the first one nothing but its text."""
    scores = iter(generator.score([pair for prompt in prompts if all(pair := prompt.pair)]))
    found = []
    for prompt in prompts:
        first, rest = prompt.pair
        told = next(scores).logprobs if first and rest else ()
        if len(told) != len(rest):
            raise Unsupported(generator.capabilities.backend, "echo", "it scores texts, but not each token")
        head = [TokenLogprob(generator.decode([token]), None, token) for token in first[prompt.hidden :]]
        found.append([*head, *(replace(one, top=one.top[:most]) for one in told)])
    return found


def _after(said: Said, prompt: Read, told: Sequence[TokenLogprob] | None) -> Said:
    if told is not None:
        said = replace(said, logprobs=tuple(chain(told, said.logprobs or ())))
    return replace(said, text=prompt.text + (said.text or ""))
