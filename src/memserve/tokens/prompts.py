"""Prompts to token ids by the checkpoint's own template, and what else an engine's tokenizer is asked."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

from memserve import pictures
from memserve.errors import ContextOverflow, InvalidInput, ModelUnreadable, Unsupported
from memserve.protocol import (
    DEFAULT_MAX_TOKENS,
    Capabilities,
    Completion,
    Prompt,
    Raw,
    Request,
    Sample,
    ScorePrompts,
    Usage,
)
from memserve.tokens import calling, template, thinking
from memserve.tokens.calling import Calling
from memserve.tokens.detokenizer import Detokenizer, Tokenizer
from memserve.tokens.thinking import Thinking

_SAID = "memserve proves this template"
_SHORT = ({"role": "user", "content": _SAID},)
NONE: dict[str, Any] = {}


class Prepared(NamedTuple):
    """A request's token ids, the most tokens that may answer it, and how its answer is read."""

    ids: list[int]
    most: int
    thinking: Thinking | None = None
    inside: bool = False
    """The prompt ends inside a thought."""
    budget: int | None = None
    """The most tokens of thought."""
    calling: Calling | None = None
    """The calls of tools that may answer it."""
    pictures: Any = None
    """What the model is shown: `reader(text, pictures)` gives it beside the ids."""

    @property
    def parted(self) -> bool:
        """Whether an answer may hold more than text: a thought, or calls."""
        return self.thinking is not None or self.calling is not None


class Prompts:
    """Encodes for one tokenizer and one context length."""

    def __init__(self, tokenizer: Tokenizer, *, vocabulary: int, context: int | None, path: str,
                 backend: str, reader: Any = None) -> None:  # fmt: skip
        self.tokenizer, self.vocabulary, self.context, self.path = tokenizer, vocabulary, context, path
        self.backend, self.reader, self._marker = backend, reader, getattr(reader, "marker", None)
        self.bos = _added_bos(tokenizer)
        self._parts = False
        self.chat = bool(getattr(tokenizer, "chat_template", None))

    @cached_property
    def thinking(self) -> Thinking | None:
        """How the checkpoint thinks before it answers; None: it does not, or has no template."""
        template = self._template
        return thinking.find(template, self._tried_with, self.tokenizer) if template else None

    @cached_property
    def family(self) -> calling.Family | None:
        """How the checkpoint writes calls of tools; None: its template takes none, or unknown ones."""
        return calling.find(self._template, self._tried_with) if self._template else None

    @property
    def _template(self) -> str | None:
        template = getattr(self.tokenizer, "chat_template", None)
        if isinstance(template, Mapping):  # transformers takes this one where tools are offered
            template = template.get("tool_use", template.get("default"))
        return template if isinstance(template, str) else None

    @cached_property
    def _arguments_as_text(self) -> bool:
        with suppress(InvalidInput, ModelUnreadable):
            return calling.as_text(self._render(calling.probed(), calling.WRITTEN))
        return True

    @property
    def thinking_modes(self) -> frozenset[str]:
        """What a caller may ask of this checkpoint's thinking; one that never thinks can be told not to."""
        if self.thinking is None:
            return frozenset({"off"} if self.chat else ())
        return self.thinking.modes

    def prepare(self, request: Request) -> Prepared:
        """The prompt as the request's settings want it written, shortened if that was asked for."""
        prompt = request.prompt
        if _is_plain(prompt):
            return Prepared(*self.fit(self.encode(prompt), request))
        how, wanted = self.thinking, request.thinking
        variables = {**(how.variables(wanted) if how else {}), **request.template}
        calls = self._calling(request)
        if calls is not None:
            variables.update(calling.offered(request.tools))
        text = self._chat(_messages(prompt), variables)
        if calls is not None:
            calls = replace(calls, salt=sha256(text.encode()).hexdigest())
        ids, seen = self._read(text, prompt)
        if seen is not None:  # of a prompt with pictures nothing can be cut
            request = replace(request, truncate="refuse")
        if how is None or not how.thinks(variables):
            return Prepared(*self.fit(ids, request), calling=calls, pictures=seen)
        budget = wanted if wanted and not isinstance(wanted, bool) else None
        ids, most = self.fit(ids, request, budget or 0)
        return Prepared(ids, most, how, how.opened(text), budget, calls, seen)

    def _calling(self, request: Request) -> Calling | None:
        if not request.tools:
            return None
        if self.family is None:
            raise Unsupported(self.backend, "tools", "the chat template takes none that we can read")
        return calling.of(request, self.family, self._marks)

    @cached_property
    def _marks(self) -> dict[int, str]:
        return thinking.kept(self.family.words, self.tokenizer) if self.family else {}

    def detokenizer(self, request: Request, prepared: Prepared, *, live: bool) -> Detokenizer:
        """What turns one answer's tokens into text, apart from its thought and its calls."""
        return Detokenizer(
            self.tokenizer, request.stop, live=live, thinking=prepared.thinking, inside=prepared.inside,
            budget=prepared.budget, calling=prepared.calling,
        )  # fmt: skip

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of any kind of prompt."""
        if isinstance(prompt, Raw):
            return self.plain(prompt.text)
        if not isinstance(prompt, str) and prompt and isinstance(prompt[0], int):
            return self.known(prompt)  # type: ignore[arg-type]
        return self._read(self._chat(_messages(prompt)), prompt)[0]

    def _read(self, text: str, prompt: Prompt) -> tuple[list[int], Any]:
        """The ids of a written conversation, and its pictures as the engine takes them."""
        if not (urls := pictures.addresses(prompt)):
            return self.bare(text), None
        ids, seen = self.reader(text, list(map(pictures.load, urls)))
        return ids, seen

    def written(self, prompt: Prompt) -> str | None:
        """A conversation as the template writes it; None for any other prompt."""
        return None if _is_plain(prompt) else self._chat(_messages(prompt))

    @property
    def opening(self) -> int | None:
        """What stands before a text's first token: BOS, or EOS where there is none."""
        both = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((int(token) for token in both if token is not None), None)

    def plain(self, text: str) -> list[int]:
        """Text as the tokenizer takes it: its BOS where it adds one, never two."""
        ids = self.bare(text)
        return ids if not self.bos or ids[:1] == self.bos else self.bos + ids

    def bare(self, text: str) -> list[int]:
        """Text without any added token."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def fit(self, ids: list[int], request: Request, thought: int = 0) -> tuple[list[int], int]:
        """The prompt, shortened if asked for, and how many tokens may answer it, `thought` besides."""
        asked = (request.max_tokens or (DEFAULT_MAX_TOKENS if thought else 0)) + thought or None
        if not ids:
            raise InvalidInput("the prompt has no tokens")
        if self.context is None:
            return ids, asked or DEFAULT_MAX_TOKENS
        least = asked or 1
        if len(ids) + least > self.context:
            space = self.context - (asked or min(DEFAULT_MAX_TOKENS, self.context // 2))
            if request.truncate == "refuse" or space < 1:
                raise ContextOverflow(tokens=len(ids) + least, limit=self.context, prompt=len(ids))
            ids = self._shorten(ids, space, request.truncate)
        return ids, asked or min(DEFAULT_MAX_TOKENS, self.context - len(ids))

    def _shorten(self, ids: list[int], space: int, policy: str) -> list[int]:
        """Left: the oldest tokens go. Middle: the beginning and the end stay. A leading BOS always stays."""
        head = self.bos if self.bos and ids[:1] == self.bos and space > 1 else []
        body, space = ids[len(head) :], space - len(head)
        first = space // 2 if policy == "middle" else 0
        return head + body[:first] + body[len(body) - (space - first) :]

    def known(self, ids: Sequence[int]) -> list[int]:
        """Token ids, each of them in the vocabulary."""
        wrong = next((i for i in ids if not 0 <= i < self.vocabulary), None)
        if wrong is not None:
            raise InvalidInput(f"token id {wrong} is outside the vocabulary of {self.vocabulary:,}")
        return list(ids)

    def _chat(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any] = NONE) -> str:
        if not self.chat:
            if self.reader is not None and pictures.addresses(messages):
                return pictures.words(messages)
            raise Unsupported(
                self.backend, "chat messages", "the checkpoint has no chat template",
                hint="pass memserve.Raw(text) or token ids",
            )  # fmt: skip
        return self._render([self._message(message) for message in messages], variables)

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """One message as templates read it."""
        content = pictures.templated(message.get("content"), self._parts, self.backend, self._marker)
        thought = thinking.history(message, content, lambda: self.thinking)
        plain = {**message, "content": content, **thought}
        calls = plain.pop("tool_calls", None)
        if calls:
            plain["tool_calls"] = calling.history(calls, as_text=self._arguments_as_text)
            plain["content"] = plain["content"] or ""
        return plain

    def _render(self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        from jinja2.exceptions import TemplateError

        settings = {"tokenize": False, "add_generation_prompt": True, **variables}
        try:
            text = template.limited(self.tokenizer.apply_chat_template, messages, **settings)
        except TemplateError as error:
            raise InvalidInput(f"the model's chat template refuses these messages: {error}") from error
        except Exception as error:
            raise self._broken(f"fails: {type(error).__name__}: {error}") from error
        return str(text)

    def prove(self) -> None:
        """Render one plain message, so that a broken template is found before any request.

        Templates of models that also see pictures loop over a message's parts: a string goes lost in them.
        """
        if not self.chat:
            return
        if (broken := self._tried(parts=False)) and self._tried(parts=True):
            raise broken

    def _tried_with(self, variables: Mapping[str, Any],
                    messages: Sequence[Mapping[str, Any]] = _SHORT) -> str | None:  # fmt: skip
        """A conversation as the template writes it with these variables; None where it fails."""
        with suppress(InvalidInput, ModelUnreadable):
            return self._chat(messages, variables)
        return None

    def _tried(self, *, parts: bool) -> ModelUnreadable | None:
        """What is wrong with the template where messages come so; None where they come through."""
        self._parts = parts
        message = self._message({"role": "user", "content": _SAID})
        try:
            text = self._render([message], NONE)
        except (InvalidInput, ModelUnreadable) as error:
            return error if isinstance(error, ModelUnreadable) else self._broken(f"fails: {error}")
        if _SAID in text and not (parts and str(message["content"]) in text):
            return None
        return self._broken("leaves out what the user says")

    def _broken(self, how: str) -> ModelUnreadable:
        words = f"the chat template in {self.path} {how}"
        return ModelUnreadable(words, path=self.path, field="chat_template")


def _is_plain(prompt: Prompt) -> bool:
    """Raw text or token ids: no template, and so nothing known of a thought."""
    return isinstance(prompt, Raw) or (not isinstance(prompt, str) and isinstance(prompt[0], int))


def _messages(prompt: Prompt) -> Sequence[Mapping[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt  # type: ignore[return-value]


def _added_bos(tokenizer: Tokenizer) -> list[int]:
    """The BOS that the tokenizer itself puts before plain text, if it does."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and list(tokenizer.encode("x"))[:1] == [bos] else []


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
        raise ContextOverflow(tokens=len(whole), limit=most, prompt=len(whole))
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
