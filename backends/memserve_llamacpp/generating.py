"""llama.cpp as a memserve engine: one sequence at a time, sharing prefixes with the one before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.errors import Closed, InvalidInput, MemserveError, Unsupported
from memserve.protocol import (
    Completion,
    Delta,
    FinishReason,
    Request,
    Sample,
    Score,
    ScorePrompts,
    TokenLogprob,
    Usage,
)
from memserve.tokens.calling import Calling
from memserve.tokens.detokenizer import Detokenizer
from memserve.tokens.drawing import Told, choose, keys, log_softmax, told
from memserve.tokens.grammar import written
from memserve.tokens.prompts import Prepared, Prompts, ScorePair, Tokenizing
from memserve.tokens.template import compiled
from memserve_llamacpp.engine import capabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

_compiled = lru_cache(maxsize=4)(compiled)


class GgufTokenizer:
    """Encodes and decodes with llama.cpp; renders the template that the file carries."""

    def __init__(self, llama: Any) -> None:
        self._llama = llama
        named = {"default": "tokenizer.chat_template", "tool_use": "tokenizer.chat_template.tool_use"}
        found = {name: told for name, key in named.items() if (told := llama.metadata.get(key))}
        self.chat_template = found if "tool_use" in found else found.get("default")
        self.bos_token_id = _known(llama.token_bos())
        self.eos_token_id = _known(llama.token_eos())
        self._adds_bos = bool(llama._model.add_bos_token())  # a file may leave it to its kind of tokenizer

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids; special tokens that the text spells out are taken as such."""
        bos = add_special_tokens and self._adds_bos
        return list(self._llama.tokenize(text.encode("utf-8"), add_bos=bos, special=True))

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = True, **_: Any) -> str:
        """Text; half characters show as the replacement character."""
        raw = self._llama.detokenize(list(tokens), special=not skip_special_tokens)
        return str(raw.decode("utf-8", "replace"))

    def apply_chat_template(self, messages: Sequence[Any], *, tokenize: bool, add_generation_prompt: bool,
                            **variables: Any) -> str:  # fmt: skip
        """The rendered template; `tokenize` is there for the shared signature and must be False."""
        words = {"bos_token": self._word(self.bos_token_id), "eos_token": self._word(self.eos_token_id)}
        named = self.chat_template
        if isinstance(named, dict):
            named = named["tool_use"] if variables.get("tools") else named.get("default", named["tool_use"])
        return str(
            _compiled(str(named)).render(
                messages=list(messages),
                add_generation_prompt=add_generation_prompt,
                **{**words, **variables},
            )
        )

    def ends(self) -> frozenset[int]:
        """Every token that the file says ends an answer."""
        names = ("eos_token_id", "eot_token_id", "eom_token_id")
        told = (self._llama.metadata.get(f"tokenizer.ggml.{name}") for name in names)
        return frozenset(int(token) for token in told if token is not None)

    def _word(self, token: int | None) -> str:
        return "" if token is None else self.decode([token], skip_special_tokens=False)


def _known(token: int) -> int | None:
    return None if token < 0 else token


def grammar_of(request: Request, prepared: Prepared) -> Any:
    """A `LlamaGrammar`, or None for a free answer: of calls that may come or not, none is held."""
    calling = prepared.calling
    if request.schema is None and not request.choices and not (calling and calling.forced):
        return None
    from llama_cpp import LlamaGrammar

    try:
        return LlamaGrammar.from_string(_text(request, calling), verbose=False)
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
        raise InvalidInput(f"llama.cpp cannot follow the schema: {error}") from error


def _text(request: Request, calling: Calling | None) -> str:
    from llama_cpp.llama_grammar import SchemaConverter

    rules = SchemaConverter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    parts = [_calls(rules, calling)] if calling else []
    if not (calling and calling.forced):
        parts += [_word(choice) for choice in request.choices or ()]
        if request.schema is not None:
            parts.append(
                rules.visit(rules.resolve_refs(json.loads(json.dumps(request.schema)), "stdin"), "answer")
            )
    rules._rules["root"] = " | ".join(parts)
    return str(rules.format_grammar())


def _calls(rules: Any, calling: Calling) -> str:
    """One call or several, as the model's family writes them."""
    family = calling.family
    if family.pair:
        raise Unsupported(
            "llamacpp", "tool_choice", f"llama.cpp cannot hold calls as {family.name} writes them"
        )
    calls = []
    for place, (begin, schema, end) in enumerate(written(calling)):
        known = rules.resolve_refs(json.loads(json.dumps(schema)), "stdin")
        number = " [0-9]+ " if family.id else " "
        begin, middle = (
            (begin.removesuffix(family.middle[0]) + ":", family.middle[0]) if family.id else (begin, "")
        )
        calls.append(
            f"{_word(begin)}{number}{_word(middle)} {rules.visit(known, f'tool{place}')} {_word(end)}"
        )
    rules._rules["call"] = " | ".join(calls)
    more = "" if calling.once else f" ({_word(family.between)} call)*"
    return f"{_word(family.section[0])} call{more} {_word(family.section[1])}"


def _word(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


PIECE = 128
"""Tokens of a prompt that are computed together."""


@dataclass
class _Answer:
    """One sample while it grows."""

    text: Detokenizer
    ids: list[int] = field(default_factory=list)
    told: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason = "length"


class Generating(Tokenizing):
    """Satisfies memserve.protocol.BatchEngine."""

    fills_max_tokens = True

    def __init__(self, llama: Any, model: str, reader: Any = None) -> None:
        import llama_cpp

        self._llama = llama
        self._tokenizer = GgufTokenizer(llama)
        self._ends = self._tokenizer.ends()
        self._ending = False
        self._pieces = 0
        """Tokens in the cache that were read in whole pieces of a prompt."""
        self._held: list[tuple[Any, int]] = []
        """Chunks of a prompt with pictures that the cache holds, and where each ends."""
        self._prompts = Prompts(
            self._tokenizer, vocabulary=llama.n_vocab(), context=llama.n_ctx(), path=model,
            backend="llamacpp", reader=reader,
        )  # fmt: skip
        self._prompts.prove()
        self.identity = {"model": model, "engine": f"llama-cpp-python {llama_cpp.__version__}"}
        self.capabilities = replace(
            capabilities, engine=f"llama-cpp-python {llama_cpp.__version__}", model=model,
            device="gpu" if llama_cpp.llama_supports_gpu_offload() else "cpu", tasks=frozenset({"generate"}),
            context=llama.n_ctx(), chat=self._prompts.chat, thinking=self._prompts.thinking_modes,
            template=self._prompts.chat, tools=self._prompts.family is not None, roles=frozenset(),
            normalize=False, dimensions=False, images=reader is not None,
        )  # fmt: skip

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer one after the other; a request that fails alone carries its error."""
        return [self._completion(request) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        """The answer piece by piece."""
        prepared = self._prompts.prepare(request)
        answer = _Answer(self._prompts.detokenizer(request, prepared, live=True))
        for _ in self._grow(request, prepared, 0, answer):
            if delta := answer.text.delta():
                yield delta
        yield answer.text.last(answer.finish, Usage(len(prepared.ids), len(answer.ids)))

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihoods, one token of the continuation after the other."""
        return [self._score(pair) for pair in self._pairs(pairs)]

    def interrupt(self) -> None:
        """End what runs after its current token, with `Closed`."""
        self._ending = True

    def close(self) -> None:
        """Free the model and its cache."""
        llama, self._llama = self._llama, None
        if llama is not None:
            llama.close()

    def _completion(self, request: Request) -> Completion:
        try:
            prepared = self._prompts.prepare(request)
            count = request.n if request.temperature else 1
            drawn = [self._sample(request, prepared, index) for index in range(count)]
        except Closed:
            raise
        except MemserveError as error:
            return Completion(text=None, error=error, request_id=request.id)
        used = sum(len(sample.token_ids or ()) for sample, _ in drawn)
        return self._joined(request, drawn, Usage(len(prepared.ids), used))

    def _sample(self, request: Request, prepared: Prepared, index: int) -> tuple[Sample, int | None]:
        """One sample, and the tokens of its thought."""
        answer = _Answer(self._prompts.detokenizer(request, prepared, live=False))
        for _ in self._grow(request, prepared, index, answer):
            pass
        told = answer.told if request.logprobs is not None else None
        return answer.text.sample(answer.finish, answer.ids, told), answer.text.reasoning_tokens

    def _grow(self, request: Request, prepared: Prepared, index: int, answer: _Answer) -> Iterator[None]:
        """Add tokens until the model ends, a stop string is complete or the limit is reached."""
        for token, logits in self._tokens(request, prepared, index, answer.text):
            self._go_on()
            answer.ids.append(token)
            if request.logprobs is not None:
                answer.told.append(told(token, logits, request.logprobs, self._tokenizer))
            if token == self._tokenizer.eos_token_id or token in self._ends:
                answer.finish = "stop"
                return
            answer.text.push(token)
            if answer.text.stopped:
                answer.finish = "stop"
            yield
            if answer.text.stopped or len(answer.ids) >= prepared.most:
                return

    def _tokens(self, request: Request, prepared: Prepared, index: int,
                text: Detokenizer) -> Iterator[tuple[int, Any]]:  # fmt: skip
        """Tokens with the logits that they were chosen by; a grammar binds the answer, not the thought."""
        grammar, made = grammar_of(request, prepared), list[int]()
        if grammar is None or not text.answering:
            for token, logits in self._free(request, prepared, index, text):
                yield token, logits
                made.append(token)
                if grammar is not None and text.answering:
                    break
        if grammar is None:
            return
        ids = self._ahead(prepared, made)
        heat = {
            "temp": request.temperature or 0.0, "top_k": request.top_k or 0, "top_p": request.top_p or 1.0,
        }  # fmt: skip
        for token in self._llama.generate(ids, min_p=request.min_p or 0.0, grammar=grammar, **heat):
            yield int(token), self._logits()

    def _ahead(self, prepared: Prepared, made: list[int]) -> list[int]:
        """What a grammar's answer goes on from, read but for its last token."""
        if prepared.pictures is None:
            ids = [*prepared.ids, *made]
            self._read(ids[:-1])
            return ids
        if not made:
            self._see(prepared.pictures)
        llama = self._llama
        return [*llama.input_ids[: llama.n_tokens].tolist(), *made[-1:]]

    def _free(self, request: Request, prepared: Prepared, index: int,
              text: Detokenizer) -> Iterator[tuple[int, Any]]:  # fmt: skip
        random = keys(request, index)
        if prepared.pictures is None:
            self._read(prepared.ids)
        else:
            self._see(prepared.pictures)
        while True:
            logits = self._logits()
            forced = text.forced()
            token = choose(logits, request, random) if forced is None else forced
            yield token, logits
            self._llama.eval([token])

    def _see(self, seen: Any) -> None:
        """Evaluate a prompt with pictures, keeping the chunks that it begins with as the one before."""
        llama, parts = self._llama, seen.parts
        pairs = zip(self._held, parts[:-1], strict=False)
        same = next((n for n, ((key, _), part) in enumerate(pairs) if key != part.key), None)
        kept = min(len(self._held), len(parts) - 1) if same is None else same
        start = self._held[kept - 1][1] if kept else 0
        if not start or not llama._ctx.kv_cache_seq_rm(-1, start, -1):
            kept = start = 0
            llama._ctx.kv_cache_clear()
        self._held, self._pieces, llama.n_tokens = self._held[:kept], 0, start
        for part in parts[kept:]:
            self._go_on()
            if part.handle is None:
                for first in range(0, part.size, PIECE):
                    llama.eval(list(part.key[first : first + PIECE]))
            else:
                self._prompts.reader.read(part, part is parts[-1])
            self._held.append((part.key, llama.n_tokens))

    def _read(self, ids: Sequence[int]) -> None:
        """Evaluate a prompt in pieces, keeping those that it shares with the prompt before.

        Pieces begin at fixed places, so that a prompt is computed alike whatever was kept: llama.cpp's
        logits differ in their last digits with the number of tokens that are computed together.
        """
        llama = self._llama
        self._held = []
        pairs = zip(llama._input_ids[: self._pieces], ids[:-1], strict=False)
        shared = next((n for n, (old, new) in enumerate(pairs) if int(old) != new), None)
        longest = max(0, min(self._pieces, len(ids) - 1))
        kept = (longest if shared is None else shared) // PIECE * PIECE
        if kept == 0 or not llama._ctx.kv_cache_seq_rm(-1, kept, -1):
            kept = 0
            llama._ctx.kv_cache_clear()
        llama.n_tokens = self._pieces = kept
        for start in range(kept, len(ids), PIECE):
            self._go_on()
            llama.eval(list(ids[start : start + PIECE]))
        self._pieces = len(ids) // PIECE * PIECE

    def _go_on(self) -> None:
        if self._ending:
            raise Closed("the engine was closed before it answered", hint="open a new one")

    def _logits(self) -> NDArray[np.float32]:
        pointer = self._llama._ctx.get_logits_ith(-1)
        return np.ctypeslib.as_array(pointer, shape=(self._llama.n_vocab(),)).copy()

    def _score(self, pair: ScorePair) -> Score:
        total, rows = 0.0, []
        self._read(pair.tokens[: pair.start])
        for place in range(pair.start, len(pair.tokens)):
            token = pair.tokens[place]
            row = log_softmax(self._logits())
            total += float(row[token])
            best = int(np.argmax(row))
            rows.append((token, row[token], best, row[best]))
            if place + 1 < len(pair.tokens):
                self._go_on()
                self._llama.eval([token])
        greedy = all(best == token for token, _, best, _ in rows)
        return Score(total, pair.count, greedy, Told(self._tokenizer, *zip(*rows, strict=True)))
