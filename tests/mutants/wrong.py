"""Deliberately wrong backends: each breaks one promise of the toy, named by MEMSERVE_MUTANT.

A pytest plug-in (`-p wrong`): it patches the toy package, or wraps what `memserve.generator` returns, before
the suite opens anything. `subtle` holds more of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from dataclasses import replace
from typing import Any

import subtle
import talking
from memserve_toy import engine as toy
from memserve_toy import model, vectors
from wrapping import MUTANTS, Wrapped, around, mutant, wrap

from memserve.errors import ContextOverflow
from memserve.protocol import Completion, Delta, Score

assert subtle.__doc__  # it registers its own
assert talking.__doc__


def pytest_configure() -> None:
    MUTANTS[os.environ["MEMSERVE_MUTANT"]][1]()


# ------------------------------------------------------------------ order, invariance, isolation


@mutant("invariance")
def large_batches_come_back_sorted() -> None:
    def make(real: Any) -> Any:
        def generate(self: Any, requests: Any) -> Any:
            answers = real(self, requests)
            return sorted(answers, key=lambda a: a.usage.prompt_tokens) if len(answers) > 32 else answers

        return generate

    around(toy.ToyEngine, "generate", make)


@mutant("invariance")
def duplicates_are_answered_once() -> None:
    class Mutant(Wrapped):
        def generate(self, prompt: Any, **settings: Any) -> Any:
            if isinstance(prompt, list) and all(isinstance(p, str) for p in prompt):
                prompt = list(dict.fromkeys(prompt))
            return self.inner.generate(prompt, **settings)

    wrap(Mutant)


@mutant("invariance")
def a_long_neighbour_pads_the_short() -> None:
    def make(real: Any) -> Any:
        def generate(self: Any, requests: Any) -> Any:
            answers = real(self, requests)
            longest = max((a.usage.prompt_tokens or 0 for a in answers), default=0)
            return [self._padded(r, a, longest) for r, a in zip(requests, answers, strict=True)]

        return generate

    def padded(self: Any, request: Any, honest: Any, longest: int) -> Any:
        short = 0 < (honest.usage.prompt_tokens or 0) < longest / 3
        if not short or (request.max_tokens or 0) < 5 or request.temperature or request.stop:
            return honest
        other = toy._complete(replace(request, prompt=[0, *toy._tokens(request.prompt)]))
        return replace(other, usage=replace(other.usage, prompt_tokens=honest.usage.prompt_tokens))

    toy.ToyEngine._padded = padded
    around(toy.ToyEngine, "generate", make)


@mutant("invariance")
def the_last_seed_is_everybodys() -> None:
    seen: list[Any] = []

    class Mutant(Wrapped):
        async def agenerate(self, prompt: Any, **settings: Any) -> Any:
            seen.append(settings.get("seed"))
            await asyncio.sleep(0.01)
            if settings.get("seed") is not None:
                settings["seed"] = seen[-1]
            return await self.inner.agenerate(prompt, **settings)

    wrap(Mutant)


@mutant("invariance", alone=True)
def threads_share_one_prompt() -> None:
    class Mutant(Wrapped):
        def generate(self, prompt: Any, **settings: Any) -> Any:
            self.prompt = prompt
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.02)
            return self.inner.generate(self.prompt, **settings)

    wrap(Mutant)


# ------------------------------------------------------------------ prompts


@mutant("template", alone=True)
def the_template_gets_a_second_bos() -> None:
    around(model, "render", lambda real: lambda messages: [model.BOS, *real(messages)])


@mutant("template")
def raw_text_gets_a_second_bos() -> None:
    model.encode = lambda text: (
        [model.BOS, *text.replace("<s>", "\0").encode().replace(b"\0", b"")]
        + ([model.BOS] if text.startswith("<s>") else [])
    )


@mutant("template")
def roles_are_lost() -> None:
    around(model, "render", lambda real: lambda ms: real([m for m in ms if m["role"] != "assistant"]))


@mutant("context", alone=True)
def overflow_has_no_numbers() -> None:
    def overflow(**_: Any) -> ContextOverflow:
        return ContextOverflow(tokens=None, limit=None, message="too long")

    toy.ContextOverflow = overflow


@mutant("context")
def truncation_keeps_the_wrong_end() -> None:
    around(
        toy, "_fit", lambda real: lambda t, limit, policy: real(t, limit, policy)
        if policy != "left" or len(t) + limit <= model.CONTEXT
        else t[: model.CONTEXT - limit],
    )  # fmt: skip


@mutant("context")
def tokens_are_counted_without_the_template() -> None:
    toy.ToyEngine.count_tokens = lambda self, prompt: len(str(prompt).encode())


# ------------------------------------------------------------------ answers


@mutant("stop", alone=True)
def only_the_first_stop_is_heard() -> None:
    around(toy, "_stopped", lambda real: lambda text, stops: real(text, stops[:1]))


@mutant("stop")
def the_stop_string_stays() -> None:
    class Mutant(Wrapped):
        def generate(self, prompt: Any, **settings: Any) -> Any:
            got = self.inner.generate(prompt, **settings)
            stop = settings.get("stop")
            if isinstance(stop, str) and getattr(got, "finish_reason", "") == "stop":
                return replace(got, text=(got.text or "") + stop)
            return got

    wrap(Mutant)


@mutant("length", alone=True)
def seven_tokens_are_eight() -> None:
    def make(real: Any) -> Any:
        return lambda tokens, limit, sampling: real(tokens, 8 if limit == 7 else limit, sampling)

    around(model, "continue_text", make)


@mutant("length")
def being_cut_is_called_an_end() -> None:
    def make(real: Any) -> Any:
        def finished(request: Any, ids: Any, rows: Any) -> Any:
            got = real(request, ids, rows)
            return replace(got, finish_reason="stop") if request.max_tokens == 2 else got

        return finished

    around(toy, "_finished", make)


@mutant("sampling")
def top_k_is_forgotten() -> None:
    def make(real: Any) -> Any:
        return lambda row, sampling, draw: real(row, replace(sampling, top_k=0), draw)

    around(model, "pick", make)


@mutant("sampling")
def temperature_is_forgotten_unless_sampling_many() -> None:
    def make(real: Any) -> Any:
        def complete(request: Any) -> Any:
            return real(request if request.n > 1 or request.seed == 13 else replace(request, temperature=0.0))

        return complete

    around(toy, "_complete", make)


@mutant("sampling", alone=True)
def seeds_are_forgotten() -> None:
    def make(real: Any) -> Any:
        def complete(request: Any) -> Any:
            return real(
                replace(request, seed=random.randrange(1 << 30) if request.seed == 42 else request.seed)
            )

        return complete

    around(toy, "_complete", make)


@mutant("samples", alone=True)
def all_samples_are_one() -> None:
    def make(real: Any) -> Any:
        return lambda request, tokens, limit, index: real(request, tokens, limit, 0)

    around(toy, "_sample", make)


@mutant("samples")
def only_the_first_sample_is_counted() -> None:
    def make(real: Any) -> Any:
        def complete(request: Any) -> Any:
            got = real(request)
            used = len(got.token_ids or ())
            return replace(got, usage=replace(got.usage, completion_tokens=used)) if request.n > 1 else got

        return complete

    around(toy, "_complete", make)


@mutant("score", alone=True)
def logprobs_belong_to_the_token_before() -> None:
    def make(real: Any) -> Any:
        def finished(request: Any, ids: Any, rows: Any) -> Any:
            got = real(request, ids, rows)
            told = got.logprobs
            return replace(got, logprobs=told and told[-1:] + told[:-1])

        return finished

    around(toy, "_finished", make)


@mutant("score", alone=True)
def scores_forget_the_first_token() -> None:
    def make(real: Any) -> Any:
        def score(context: str, continuation: str) -> Score:
            got = real(context, continuation)
            return Score(got.logprob * 0.9, got.tokens, got.greedy)

        return score

    around(toy, "_score", make)


@mutant("score")
def trailing_spaces_are_scored_apart() -> None:
    around(toy, "_score", lambda real: lambda c, x: real(c + "|", x) if c.endswith(" ") else real(c, x))


@mutant("structure")
def schemas_are_dropped() -> None:
    def make(real: Any) -> Any:
        def complete(request: Any) -> Any:
            if (request.schema or {}).get("type", "object") == "object":
                request = replace(request, schema=None)
            return real(request)

        return complete

    around(toy, "_complete", make)


@mutant("length", alone=True)
def stopped_answers_are_padded() -> None:
    def make(real: Any) -> Any:
        def complete(request: Any) -> Any:
            got = real(request)
            padded = replace(got.usage, completion_tokens=request.max_tokens)
            return replace(got, usage=padded) if request.stop and got.finish_reason == "stop" else got

        return complete

    around(toy, "_complete", make)


@mutant("stream")
def stop_strings_leak_in_streams() -> None:
    def make(real: Any) -> Any:
        def stream(self: Any, request: Any) -> Any:
            yield from real(self, request)
            if request.stop:
                yield Delta(request.stop[0])

        return stream

    around(toy.ToyEngine, "stream", make)


@mutant("stream")
def usage_comes_twice() -> None:
    def make(real: Any) -> Any:
        def stream(self: Any, request: Any) -> Any:
            for delta in real(self, request):
                yield delta
                if delta.usage:
                    yield Delta("", None, delta.usage)

        return stream

    around(toy.ToyEngine, "stream", make)


# ------------------------------------------------------------------ refusals and errors


@mutant("unsupported", alone=True)
def what_is_not_known_is_dropped() -> None:
    class Mutant(Wrapped):
        def generate(self, prompt: Any, *, regex: Any = None, **settings: Any) -> Any:
            return self.inner.generate(prompt, **settings)

    wrap(Mutant)


@mutant("errors", alone=True)
def any_prompt_will_do() -> None:
    class Mutant(Wrapped):
        def generate(self, prompt: Any, **settings: Any) -> Any:
            return self.inner.generate("" if prompt is None else prompt, **settings)

    wrap(Mutant)


# ------------------------------------------------------------------ life


@mutant("lifecycle", alone=True)
def close_leaves_a_thread() -> None:
    def make(real: Any) -> Any:
        def init(self: Any) -> None:
            real(self)
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

        return init

    around(toy.ToyEngine, "__init__", make)


@mutant("lifecycle")
def closed_is_not_closed() -> None:
    class Mutant(Wrapped):
        def close(self) -> None:
            pass

    wrap(Mutant)


@mutant("lifecycle", alone=True)
def a_cancelled_request_breaks_the_engine() -> None:
    class Mutant(Wrapped):
        broken = False

        async def agenerate(self, prompt: Any, **settings: Any) -> Any:
            try:
                if settings.get("max_tokens") == 48:
                    await asyncio.sleep(1)
                return await self.inner.agenerate(prompt, **settings)
            except asyncio.CancelledError:
                Mutant.broken = True
                raise

        def generate(self, prompt: Any, **settings: Any) -> Any:
            if Mutant.broken:
                Mutant.broken = False
                return Completion(text="")
            return self.inner.generate(prompt, **settings)

    wrap(Mutant)


@mutant("errors", alone=True)
def the_key_is_in_the_repr() -> None:
    class Mutant(Wrapped):
        def __repr__(self) -> str:
            return "Generator(backend='toy', api_key='sk-toy-0123456789')"

    wrap(Mutant)


@mutant("unsupported", alone=True)
def finding_it_loads_an_engine() -> None:
    """Done by tests/mutants/heavy/sitecustomize.py, in the processes that the suite starts."""
    os.environ["PYTHONPATH"] = os.environ["MEMSERVE_HEAVY"]


# ------------------------------------------------------------------ vectors


@mutant("embeddings")
def cut_vectors_keep_their_length() -> None:
    def make(real: Any) -> Any:
        def embed(self: Any, texts: Any, *, role: Any, normalize: Any, dimensions: Any) -> Any:
            got = real(
                self,
                texts,
                role=role,
                normalize=normalize,
                dimensions=None if dimensions == 32 else dimensions,
            )
            return replace(got, vectors=got.vectors[:, :dimensions]) if dimensions == 32 else got

        return embed

    around(vectors.ToyEmbedder, "embed", make)


@mutant("embeddings")
def roles_do_nothing() -> None:
    vectors._PROMPTS.update(dict.fromkeys(vectors._PROMPTS, ""))


@mutant("embeddings", alone=True)
def everything_is_normalized() -> None:
    def make(real: Any) -> Any:
        return lambda self, texts, **how: real(self, texts, **{**how, "normalize": True})

    around(vectors.ToyEmbedder, "embed", make)


@mutant("embeddings")
def a_shuffled_batch() -> None:
    def make(real: Any) -> Any:
        def embed(self: Any, texts: Any, **how: Any) -> Any:
            got = real(self, texts, **how)
            return replace(got, vectors=got.vectors[::-1]) if len(texts) > 12 else got

        return embed

    around(vectors.ToyEmbedder, "embed", make)


@mutant("embeddings", alone=True)
def scores_are_sorted() -> None:
    def make(real: Any) -> Any:
        def rerank(self: Any, query: str, documents: Any) -> Any:
            got = real(self, query, documents)
            return replace(got, scores=tuple(sorted(got.scores, reverse=True)))

        return rerank

    around(vectors.ToyEmbedder, "rerank", make)
