"""Subtle faults, seen only in one way of asking or at one value: what a careless look lets pass."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from wrapping import Altered, AlteredEmbedder, Wrapped, mutant

from memserve.errors import ContextOverflow, EngineFailed
from memserve.protocol import Delta, Usage

# ------------------------------------------------------------------ one in each group that only it catches


@mutant("invariance", alone=True)
class NothingIsAnError(Wrapped):
    def generate(self, prompt: Any, **settings: Any) -> Any:
        if prompt == []:
            raise ValueError("need at least one prompt")
        return self.inner.generate(prompt, **settings)


@mutant("invariance")
class FiveAnswersChangeEnds(Altered):
    def after(self, prompts: list[Any], settings: dict[str, Any], answers: list[Any]) -> list[Any]:
        if len(answers) != 5:
            return answers
        texts = [answer.text for answer in answers]
        texts[0], texts[-1] = texts[-1], texts[0]
        return [replace(answer, text=text) for answer, text in zip(answers, texts, strict=True)]


@mutant("score", alone=True)
class EachTokenIsItsOwnRival(Wrapped):
    """Whoever compares a token with the likeliest one takes every choice for greedy."""

    def score(self, pairs: Any) -> Any:
        def own(told: Any) -> Any:
            return tuple(replace(one, top=((one.token, one.logprob),)) for one in told)

        return [replace(one, logprobs=own(one.logprobs)) for one in self.inner.score(pairs)]


@mutant("sampling", alone=True)
class OnlyTopKOfOneIsKnown(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if 1 < (settings.get("top_k") or 0) < 50:
            settings.pop("top_k")
        return prompts


@mutant("stream", alone=True)
class AStreamOfManyIsOfTheFirst(Wrapped):
    def stream(self, prompt: Any, **settings: Any) -> Any:
        several = isinstance(prompt, list) and isinstance(prompt[0], str)
        return self.inner.stream(prompt[0] if several else prompt, **settings)


@mutant("ways", alone=True)
class TheLastSchemaIsEverybodys(Wrapped):
    seen: Any = None

    async def agenerate(self, prompt: Any, **settings: Any) -> Any:
        type(self).seen = settings.get("schema")
        await asyncio.sleep(0)
        return await self.inner.agenerate(prompt, **{**settings, "schema": type(self).seen})


@mutant("length")
class TheEndIsNotIgnored(Altered):
    @property
    def capabilities(self) -> Any:
        known = self.inner.capabilities
        return replace(known, extras=known.extras | {"toy_ignore_eos"})

    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if "toy_ignore_eos" in settings.get("extra", ()):
            del settings["extra"]
        return prompts

    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, finish_reason="stop") if "extra" in settings else answer


# ------------------------------------------------------------------ settings lost in one way of asking


class Forgets(Altered):
    """Drops settings where `where` says so."""

    names: tuple[str, ...] = ()

    def where(self, prompts: list[Any], settings: dict[str, Any]) -> bool:
        return True

    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if self.where(prompts, settings):
            for name in self.names:
                settings.pop(name, None)
        return prompts


@mutant("samples")
class SamplesForgetStops(Forgets):
    names = ("stop",)

    def where(self, prompts: list[Any], settings: dict[str, Any]) -> bool:
        return (settings.get("n") or 1) > 1


@mutant("stop")
class SampledAnswersForgetStops(Forgets):
    names = ("stop",)

    def where(self, prompts: list[Any], settings: dict[str, Any]) -> bool:
        return bool(settings.get("temperature"))


@mutant("sampling")
class BatchesForgetFilters(Forgets):
    names = ("top_p", "top_k", "min_p")

    def where(self, prompts: list[Any], settings: dict[str, Any]) -> bool:
        return len(prompts) > 1


@mutant("structure", alone=True)
class SampledAnswersForgetSchemas(Forgets):
    names = ("schema",)

    def where(self, prompts: list[Any], settings: dict[str, Any]) -> bool:
        return bool(settings.get("temperature"))


@mutant("ways")
class StreamsForgetSeeds(Wrapped):
    def stream(self, prompt: Any, **settings: Any) -> Any:
        if settings.get("seed") is not None:
            settings["seed"] = random.randrange(1 << 30)
        return self.inner.stream(prompt, **settings)


@mutant("structure")
class StreamsForgetSchemas(Wrapped):
    def stream(self, prompt: Any, **settings: Any) -> Any:
        return self.inner.stream(prompt, **{**settings, "schema": None})


@mutant("sampling")
class ASeedOfZeroIsNone(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        settings["seed"] = settings.get("seed") or None
        return prompts


@mutant("samples")
class SeedsAreForgottenForSamples(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("seed") is not None and (settings.get("n") or 1) > 1:
            settings["seed"] = random.randrange(1 << 30)
        return prompts


@mutant("sampling")
class NoSeedIsAlwaysTheSame(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("temperature") and settings.get("seed") is None:
            settings["seed"] = 1234
        return prompts


@mutant("sampling")
class AnyTemperatureIsOne(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if (settings.get("temperature") or 0) > 0:
            settings["temperature"] = 1.0
        return prompts


@mutant("samples")
class SamplesGetOneTokenMore(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        settings["max_tokens"] += (settings.get("n") or 1) > 1
        return prompts


# ------------------------------------------------------------------ answers


@mutant("stop")
class AStopAtTheLimitIsALength(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        full = answer.usage.completion_tokens == settings.get("max_tokens")
        return replace(answer, finish_reason="length") if full else answer


@mutant("stop")
class StopsTrimTheAnswer(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        return replace(answer, text=answer.text.strip()) if settings.get("stop") and answer.text else answer


@mutant("stop")
class TwoStopsAreEnough(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if isinstance(settings.get("stop"), list):
            settings["stop"] = settings["stop"][:2]
        return prompts


@mutant("score")
class LogprobsAreScaled(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        heat = settings.get("temperature") or 1.0
        scaled = tuple(
            replace(e, logprob=e.logprob / heat, top=tuple((t, x / heat) for t, x in e.top))
            for e in answer.logprobs or ()
        )
        return replace(answer, logprobs=scaled) if scaled else answer


@mutant("score")
class RivalsAreNotSorted(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        turned = tuple(replace(entry, top=entry.top[::-1]) for entry in answer.logprobs or ())
        return replace(answer, logprobs=turned) if turned else answer


@mutant("score")
class OnlyTheFirstSampleHasLogprobs(Altered):
    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        rest = tuple(replace(sample, logprobs=None) for sample in answer.samples[1:])
        return replace(answer, samples=answer.samples[:1] + rest)


@mutant("length")
class RawAnswersBeginWithThePrompt(Altered):
    def after(self, prompts: list[Any], settings: dict[str, Any], answers: list[Any]) -> list[Any]:
        return [
            replace(answer, text=prompt.text + answer.text) if hasattr(prompt, "text") else answer
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


@mutant("template")
class TheSystemIsAUser(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        turned = {"system": "user"}
        return [
            [{**m, "role": turned.get(m["role"], m["role"])} for m in p]
            if isinstance(p, list) and isinstance(p[0], dict)
            else p
            for p in prompts
        ]


@mutant("template")
class RawTextIsStripped(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        return [replace(p, text=p.text.strip()) if hasattr(p, "text") else p for p in prompts]


@mutant("template")
class FourMessagesAreRemembered(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        return [p[-4:] if isinstance(p, list) and isinstance(p[0], dict) else p for p in prompts]


# ------------------------------------------------------------------ errors, streams, life


@mutant("context")
class OverflowGuessesItsNumbers(Wrapped):
    def generate(self, prompt: Any, **settings: Any) -> Any:
        try:
            return self.inner.generate(prompt, **settings)
        except ContextOverflow as error:
            raise ContextOverflow(tokens=(error.limit or 0) + 1, limit=error.limit) from None


@mutant("context")
class WhatFitsIsTruncatedToo(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        cut = settings.get("truncate") in ("left", "middle")
        return [p[len(p) // 5 :] if cut and isinstance(p, str) and len(p) < 300 else p for p in prompts]


@mutant("errors")
class AwaitedErrorsAreKept(Wrapped):
    async def agenerate(self, prompt: Any, **settings: Any) -> Any:
        return await self.inner.agenerate(prompt, **{**settings, "on_error": "return"})


@mutant("stream")
class TheEndComesFirst(Altered):
    def pieces(self, settings: dict[str, Any], deltas: Any) -> Any:
        whole = list(deltas)
        yield Delta("", next(d.finish_reason for d in whole if d.finish_reason))
        yield from (replace(delta, finish_reason=None) for delta in whole)


@mutant("stream")
class WhatALeftStreamHadLeft(Altered):
    """The rest of a stream that was left goes into the next answer."""

    rest = ""

    def stream(self, prompt: Any, **settings: Any) -> Any:
        done = False
        try:
            yield from self.inner.stream(prompt, **settings)
            done = True
        finally:
            type(self).rest = "" if done else "rest"

    def one(self, settings: dict[str, Any], answer: Any) -> Any:
        rest, type(self).rest = self.rest, ""
        return replace(answer, text=rest + answer.text) if rest and answer.text else answer


@mutant("lifecycle")
class AwaitingStopsTheLoop(Wrapped):
    async def agenerate(self, prompt: Any, **settings: Any) -> Any:
        time.sleep(0.1)
        return self.inner.generate(prompt, **settings)


@mutant("lifecycle")
class CancellingBreaksTheNext(Wrapped):
    broken = False

    async def agenerate(self, prompt: Any, **settings: Any) -> Any:
        try:
            return await self.inner.agenerate(prompt, **settings)
        except asyncio.CancelledError:
            self.broken = True
            raise

    def generate(self, prompt: Any, **settings: Any) -> Any:
        if self.broken:
            self.broken = False
            raise EngineFailed("still busy")
        return self.inner.generate(prompt, **settings)


@mutant("lifecycle")
class MemoryIsHeld(Wrapped):
    held: ClassVar[list[Any]] = []

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.held.append(np.ones(1 << 26, np.uint8))


@mutant("lifecycle")
class StreamsOutliveTheirEngine(Wrapped):
    def stream(self, prompt: Any, **settings: Any) -> Any:
        return iter([Delta("still here", "stop", Usage(1, 1))])


@mutant("unsupported")
class NumbersAreCutToTheMost(Altered):
    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        if settings.get("logprobs"):
            settings["logprobs"] = min(settings["logprobs"], self.capabilities.logprobs)
        return prompts


# ------------------------------------------------------------------ pictures


class Shows(Altered):
    """A generator that is shown other pictures than it was handed."""

    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        return [self.shown(prompt) for prompt in prompts]

    def shown(self, prompt: Any) -> Any:
        if not isinstance(prompt, list) or not isinstance(prompt[0], dict):
            return prompt
        return [{**m, "content": self.parts(m.get("content"))} for m in prompt]

    def parts(self, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        places = [place for place, part in enumerate(content) if part.get("type") == "image_url"]
        kept = self.pictures([content[place] for place in places])
        rest = [part for part in content if part.get("type") != "image_url"]
        return [*kept, *rest] if places else content

    def pictures(self, pictures: list[Any]) -> list[Any]:
        return pictures


@mutant("pictures", alone=True)
class OnlyTheFirstPictureIsSeen(Shows):
    def pictures(self, pictures: list[Any]) -> list[Any]:
        return pictures[:1] + [{"type": "text", "text": " " * 14} for _ in pictures[1:]]


@mutant("pictures")
class PicturesAreTurnedRound(Shows):
    def pictures(self, pictures: list[Any]) -> list[Any]:
        return sorted(pictures, key=lambda part: str(part["image_url"]))


@mutant("pictures")
class PicturesAreNotSeenAtAll(Shows):
    def pictures(self, pictures: list[Any]) -> list[Any]:
        return [{"type": "text", "text": "a picture"} for _ in pictures]


@mutant("pictures")
class StreamsAreBlind(PicturesAreNotSeenAtAll):
    def generate(self, prompt: Any, **settings: Any) -> Any:
        return self.inner.generate(prompt, **settings)

    async def agenerate(self, prompt: Any, **settings: Any) -> Any:
        return await self.inner.agenerate(prompt, **settings)


@mutant("pictures")
class EverybodySeesTheLastPicture(Altered):
    """In a list, all are shown what the last is."""

    def before(self, prompts: list[Any], settings: dict[str, Any]) -> list[Any]:
        last = prompts[-1]
        return [last if "image_url" in str(p) and "image_url" in str(last) else p for p in prompts]


@mutant("pictures")
class PicturesCostNothing(Altered):
    def after(self, prompts: list[Any], settings: dict[str, Any], answers: list[Any]) -> list[Any]:
        return [
            replace(answer, usage=replace(answer.usage, prompt_tokens=9))
            if "image_url" in str(prompt)
            else answer
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


# ------------------------------------------------------------------ scores and vectors


@mutant("score")
class ScoresAreRememberedByContinuation(Wrapped):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.known: dict[str, Any] = {}

    def score(self, pairs: Any) -> Any:
        return [
            self.known.setdefault(more, self.inner.score([(context, more)])[0]) for context, more in pairs
        ]


@mutant("score")
class EqualPairsAreScoredOnce(Wrapped):
    def score(self, pairs: Any) -> Any:
        return self.inner.score(list(dict.fromkeys(pairs)))


@mutant("embeddings")
class NoRoleIsAQuery(AlteredEmbedder):
    def before(self, texts: list[str], how: dict[str, Any]) -> list[str]:
        how["role"] = how.get("role") or "query"
        return texts


@mutant("embeddings")
class OnlyTheFirstTextHasARole(AlteredEmbedder):
    def after(self, texts: list[str], how: dict[str, Any], got: Any) -> Any:
        if not how.get("role") or len(texts) < 2:
            return got
        bare = self.inner.embed(texts, **{**how, "role": None}).vectors
        return replace(got, vectors=np.concatenate([got.vectors[:1], bare[1:]]))


@mutant("embeddings")
class TwoRowsSwapAboveAHundred(AlteredEmbedder):
    def after(self, texts: list[str], how: dict[str, Any], got: Any) -> Any:
        rows = list(range(len(texts)))
        if len(rows) > 100:
            rows[32], rows[33] = rows[33], rows[32]
        return replace(got, vectors=got.vectors[rows]) if rows else got


@mutant("embeddings")
class OneBufferForAll(AlteredEmbedder):
    buffer: Any = None

    def after(self, texts: list[str], how: dict[str, Any], got: Any) -> Any:
        if self.buffer is None or self.buffer.shape != got.vectors.shape:
            self.buffer = got.vectors.copy()
        self.buffer[:] = got.vectors
        return replace(got, vectors=self.buffer)


@mutant("embeddings")
class SixtyLettersAreRead(AlteredEmbedder):
    def before(self, texts: list[str], how: dict[str, Any]) -> list[str]:
        return [text[:60] if isinstance(text, str) else text for text in texts]


@mutant("embeddings")
class CutVectorsAreAlwaysOfLengthOne(AlteredEmbedder):
    def after(self, texts: list[str], how: dict[str, Any], got: Any) -> Any:
        norms = np.linalg.norm(got.vectors, axis=1, keepdims=True)
        return replace(got, vectors=got.vectors / norms) if how.get("dimensions") else got
