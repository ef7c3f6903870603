"""A model of lm-evaluation-harness: python -m memserve.adapters.lm_eval run --model memserve --tasks T."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from warnings import warn

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from memserve.client import generator
from memserve.errors import InvalidInput
from memserve.protocol import Prompt, Raw, Request, ScorePrompts

_GENERATED = 256
"""Tokens of an answer where a task says nothing: lm-eval's own default."""
_DEVICE = "cuda:0"
"""What lm-eval's command line says where nobody does: the backend finds its device by itself."""


class Conversation(str):
    """Messages on their way through the harness, which carries strings."""


@register_model("memserve")
class Memserve(LM):  # type: ignore[misc]
    """--model_args model=M,backend=B and the backend's own options. memserve forms the batches itself."""

    def __init__(self, model: str | None = None, *, backend: str | None = None,
                 max_gen_toks: int = _GENERATED, batch_size: object = None, max_batch_size: object = None,
                 device: str | None = None, **options: Any) -> None:  # fmt: skip
        super().__init__()
        named = {**options, **({"device": device} if device not in (None, _DEVICE) else {})}
        self.generator = generator(model, backend=backend, **named)
        self._known = self.generator.capabilities
        self._most = int(max_gen_toks)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Each continuation's log-likelihood, and whether greedy decoding would have said it."""
        scores = self.generator.score([self._pair(*one.args) for one in requests])
        if any(score.greedy is None for score in scores):
            warn(f"{self._known.backend} does not say which token is likeliest: no answer counts as exact",
                 stacklevel=2)  # fmt: skip
        return [(score.logprob, bool(score.greedy)) for score in scores]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Each whole text's log-likelihood."""
        scores = self.generator.score_text([one.args[0] for one in requests])
        return [score.logprob for score in scores]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Each answer up to its first stop string."""
        settings = [self._settings(one.args[1]) for one in requests]
        asked = [self._asked(one.args[0], said) for one, said in zip(requests, settings, strict=True)]
        answers = self.generator.generate(asked)
        pairs = zip(answers, settings, strict=True)
        return [_cut(answer.text or "", said["until"]) for answer, said in pairs]

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, Any]],
                            add_generation_prompt: bool = True) -> str:  # fmt: skip
        """The messages as they are: the backend applies its template."""
        if not add_generation_prompt:
            raise InvalidInput("a task's gen_prefix needs a prompt without the chat template")
        return Conversation(json.dumps(chat_history))

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps requests under."""
        return str(self._known.model)

    def _pair(self, context: str, continuation: str) -> ScorePrompts:
        """Cut at the beginning where both are more than the model can read, as lm-eval's own models do."""
        if isinstance(context, Conversation):
            return json.loads(context), continuation
        most, both = self._known.context, context + continuation
        if not (most and self._known.tokenizer) or len(both.encode()) <= most:
            return context, continuation
        ids = self.generator.encode(both)
        over = max(0, len(ids) - most - 1)
        start = len(self.generator.encode(context.rstrip())) - over
        return (ids[over : over + start], ids[over + start :]) if over else (context, continuation)

    def _settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        settings = normalize_gen_kwargs(dict(given), default_max_gen_toks=self._most)
        return {**settings, "until": [stop for stop in settings["until"] if stop]}

    def _asked(self, context: str, said: Mapping[str, Any]) -> Request:
        prompt: Prompt = json.loads(context) if isinstance(context, Conversation) else Raw(context)
        own = ("until", "do_sample", "max_gen_toks")
        more = {name: value for name, value in said.items() if name not in own}
        settings: dict[str, Any] = {**more, "max_tokens": said["max_gen_toks"]}
        if not said["do_sample"]:
            settings.pop("temperature", None)  # greedy is the default, where a temperature is known at all
        if self._known.stop and said["until"]:
            settings["stop"] = said["until"][: self._known.max_stop]
        if self._known.truncate:
            settings["truncate"] = "left"
        return self.generator.prepare(prompt, **settings)


def _cut(text: str, stops: Iterable[str]) -> str:
    for stop in stops:
        text = text.split(stop)[0]
    return text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
