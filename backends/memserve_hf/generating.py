"""The generating engine: put together, its fast path proven on the model before it is trusted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty
from typing import Any

import torch

from memserve import pictures
from memserve.errors import Closed, MemserveError, ModelUnreadable, Unsupported
from memserve.hardware.machine import GIB
from memserve.missing import release_of
from memserve.protocol import Capabilities, Completion, Delta, Request, Sample, Score, ScorePrompts
from memserve.tokens.detokenizer import Detokenizer
from memserve.tokens.prompts import Prepared, Prompts, Tokenizing
from memserve_hf.decoding import grammar
from memserve_hf.decoding.grammar import Grammars
from memserve_hf.decoding.loop import Loop
from memserve_hf.decoding.prefixes import names
from memserve_hf.decoding.row import WHOLE, Job, Row, Settings, usage
from memserve_hf.decoding.scoring import Scorer, Singles, agrees, reads_text
from memserve_hf.decoding.sight import Reader, load_processor, sees, sighted
from memserve_hf.decoding.stepper import KINDS, Head, Slots, Stepper, layer_kinds
from memserve_hf.decoding.worker import Worker
from memserve_hf.opening import checkpoint
from memserve_hf.opening.checkpoint import Checkpoint, identity, refuse_too_large, settled
from memserve_hf.opening.device import Place, choose, free_bytes, release
from memserve_hf.opening.loading import load_model, load_tokenizer, pack
from memserve_hf.options import AT_BEST, Options

POLL_SECONDS = 1.0
PORTION = 32
NOTHING = Prepared([], 1)
"""Of a request that never reaches the model."""


class GeneratingEngine(Tokenizing):
    """One causal model. Calls from several threads are decoded together."""

    concurrent = True
    fills_max_tokens = True

    def __init__(self, *, capabilities: Capabilities, identity: dict[str, str], model: Any,
                 prompts: Prompts, grammars: Grammars, loop: Loop, worker: Worker, scorer: Scorer,
                 prefixes: bool) -> None:  # fmt: skip
        self.capabilities = capabilities
        self.identity = identity
        self._model, self._prompts, self._grammars = model, prompts, grammars
        self._loop, self._worker, self._scorer = loop, worker, scorer
        self._prefixes = prefixes
        self._going: set[Job] = set()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests together, but for many pictures, whose pixels would fill the memory."""
        shown = [place for place, request in enumerate(requests) if pictures.addresses(request.prompt)]
        answers: dict[int, Completion] = {}
        for first in range(0, max(len(shown), 1), PORTION):
            later = {*shown[first + PORTION :], *answers}
            places = [place for place in range(len(requests)) if place not in later]
            answers.update(zip(places, self._together([requests[p] for p in places]), strict=True))
        return [answers[place] for place in range(len(requests))]

    def _together(self, requests: Sequence[Request]) -> list[Completion]:
        """One that fails alone carries its error."""
        parts = [self._prepared(request) for request in requests]
        jobs = [job for several in parts for job in several]
        try:
            for job in jobs:
                if not job.finished.is_set():
                    self._worker.submit(job)
            for job in jobs:
                self._await(job)
        except BaseException:
            for job in jobs:
                job.cancelled = True
            raise
        return [self._completion(several) for several in parts]

    def stream(self, request: Request) -> Iterator[Delta]:
        """One answer piece by piece; closing the iterator gives the request up."""
        [job] = self._jobs(request, streamed=True)
        self._worker.submit(job)
        try:
            while (delta := self._next(job)) is not None:
                yield delta
            if job.error:
                raise job.error
        finally:
            job.cancelled = True

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihood of each continuation after its context."""
        prepared = self._pairs(pairs)
        return self._worker.call(lambda: self._scorer.run(prepared))

    def close(self) -> None:
        """End the worker and give the memory back; a second call does nothing."""
        self._worker.close()
        self._loop.stepper.clear()
        self._model = self._scorer = self._loop.stepper = None  # type: ignore[assignment]
        release()

    # ------------------------------------------------------------ requests in

    def _prepared(self, request: Request) -> list[Job]:
        try:
            return self._jobs(request)
        except Closed:
            raise
        except MemserveError as error:
            job = Job(request, [], Settings(1), self._text(request, NOTHING))
            job.close(error)
            return [job]

    def _jobs(self, request: Request, *, streamed: bool = False) -> list[Job]:
        """One job, or several where not all samples have room side by side."""
        prepared = self._prompts.prepare(request)
        prompt, most, seen = prepared.ids, prepared.most, prepared.pictures
        settings, grammar = Settings.of(request, most), self._grammars.of(request, prepared)
        text = self._text(request, prepared, live=streamed)
        shared = self._prefixes and (seen is None or seen.first >= 0)
        known = names(prompt, *([(seen.first, seen.digest)] if seen else ())) if shared else ()
        share = self._loop.share(len(prompt) + most)
        return [
            Job(request, prompt, settings, text, grammar, streamed, first=first,
                count=min(share, request.n - first), names=known, seen=seen)
            for first in range(0, request.n, share)
        ]  # fmt: skip

    def _text(self, request: Request, prepared: Prepared, *, live: bool = False) -> Callable[[], Detokenizer]:
        return partial(self._prompts.detokenizer, request, prepared, live=live)

    def _next(self, job: Job) -> Delta | None:
        while True:
            with suppress(Empty):
                return job.deltas.get(timeout=POLL_SECONDS)
            self._worker.check()

    def _await(self, job: Job) -> None:
        while not job.finished.wait(POLL_SECONDS):
            self._worker.check()

    # ------------------------------------------------------------ answers out

    def _completion(self, parts: Sequence[Job]) -> Completion:
        request, model = parts[0].request, self.capabilities.model
        error = next((job.error for job in parts if job.error), None)
        if error:
            if isinstance(error, Closed):
                raise error
            return Completion(None, error=error, model=model, request_id=request.id)
        drawn = [(_sample(row), row.text.reasoning_tokens) for job in parts for row in job.rows]
        return self._joined(request, drawn, usage(parts))


def _sample(row: Row) -> Sample:
    return row.text.sample(
        row.finish, row.tokens, row.logprobs if row.job.settings.logprobs is not None else None
    )


CLASSES = ("AutoModelForImageTextToText", "AutoModelForCausalLM")
ROWS = {"cpu": 64}
ROWS_ELSEWHERE = 128
WIDTH = {"cpu": 1024}
WIDTH_ELSEWHERE = 8192
KV_SHARE = 0.4
"""Of the memory that is free once the weights are loaded, for the sequences in flight."""
PREFIX_SHARE = 0.15
log = logging.getLogger("memserve.hf")


def generating(model: str, options: Options) -> GeneratingEngine:
    """Load, prove, and start the worker."""
    found = checkpoint.find(model, options)
    place = settled(found, options, choose(options, found.dtype), found.dtype)
    refuse_too_large(found, options, place)
    tokenizer = load_tokenizer(found, options)
    loaded = load_model(found, options, place, CLASSES)
    if found.config.get("is_encoder_decoder") and not sees(loaded):
        kind = found.config["model_type"]
        raise Unsupported("hf", f"the architecture {kind}", "of an encoder and a decoder for text or sound")
    processor = load_processor(found, options, tokenizer) if sees(loaded) else None
    pack(loaded, options, place)
    config = loaded.config.get_text_config(decoder=True)
    vocabulary = int(loaded.get_input_embeddings().num_embeddings)
    _same_vocabulary(tokenizer, vocabulary, found)
    prompts = Prompts(
        tokenizer, vocabulary=vocabulary, context=_context(config, options), path=str(found.folder),
        backend="hf", reader=processor and Reader(processor, tokenizer, loaded.config),
    )  # fmt: skip
    prompts.prove()
    ends = _ends(loaded, tokenizer, found)
    head, device = Head(loaded), loaded.get_input_embeddings().weight.device
    width = options.prefill_tokens or WIDTH.get(place.kind, WIDTH_ELSEWHERE)
    with torch.inference_mode():
        text = None
        if prompts.reader is None or reads_text(loaded, device):
            text = _stepper(loaded, head, device, width, _prefix_bytes(options, place))
        stepper = sighted(prompts, text, loaded, device, min(ends, default=0))
    positions = _positions(options, place, config, loaded)
    if isinstance(text, Slots):
        text.most = positions
    loop = Loop(
        stepper, tokenizer, ends=ends, width=width,
        max_rows=options.max_rows or ROWS.get(place.kind, ROWS_ELSEWHERE),
        max_positions=positions,
    )  # fmt: skip
    prefixes = isinstance(text, Slots) and text.prefixes.limit > 0
    return GeneratingEngine(
        capabilities=_capabilities(found, place, prompts, text),
        identity=identity(found, options, place), model=loaded, prompts=prompts,
        grammars=grammar.Grammars(tokenizer, vocabulary=_logit_count(loaded, vocabulary), ends=ends),
        loop=loop, worker=Worker(loop, found.folder.name),
        scorer=Scorer(loaded, head, prompts, device=device, width=width), prefixes=prefixes,
    )  # fmt: skip


def _stepper(model: Any, head: Head, device: torch.device, width: int, prefix_bytes: int) -> Stepper:
    """The slots where they give the model's own logits; else one row at a time."""
    config = model.config.get_text_config(decoder=True)
    vocabulary = int(config.vocab_size)
    if set(layer_kinds(config)) <= KINDS:
        slots = Slots(model, head, device=device, width=width, prefix_bytes=prefix_bytes)
        if agrees(slots, vocabulary):
            return slots
    log.warning("%s is decoded one sequence at a time: in company its logits differ", type(model).__name__)
    singles = Singles(model, head, device=device)
    return singles if agrees(singles, vocabulary) else Singles(model, head, device=device, cached=False)


def _capabilities(found: Checkpoint, place: Place, prompts: Prompts, text: Stepper | None) -> Capabilities:
    constrained, reads = grammar.available(), text is not None
    return replace(
        AT_BEST, engine=f"transformers {release_of('transformers')}", model=found.name,
        device=place.described,
        context=prompts.context, chat=prompts.chat, thinking=prompts.thinking_modes, template=prompts.chat,
        tools=prompts.family is not None, images=prompts.reader is not None,
        schema=constrained, regex=constrained, choices=constrained,
        raw=reads, token_ids=reads, score=reads, truncate=reads,
        deterministic=place.dtype == "float32" or not isinstance(text, Slots), extras=frozenset({WHOLE}),
    )  # fmt: skip


def _same_vocabulary(tokenizer: Any, vocabulary: int, found: Checkpoint) -> None:
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary:
        raise ModelUnreadable(
            f"the tokenizer knows token id {largest}, the model has {vocabulary:,} embeddings: "
            "they do not belong together",
            path=str(found.folder / "tokenizer.json"), field="vocab",
        )  # fmt: skip


def _context(config: Any, options: Options) -> int | None:
    longest = getattr(config, "max_position_embeddings", None)
    both = [int(value) for value in (longest, options.context) if value]
    return min(both, default=None)


def _ends(model: Any, tokenizer: Any, found: Checkpoint) -> frozenset[int]:
    """Every token that ends an answer: the generation config's, the tokenizer's."""
    parts = (model.generation_config, model.config, model.config.get_text_config(decoder=True))
    named = [tokenizer.eos_token_id, *(getattr(part, "eos_token_id", None) for part in parts)]
    if "blip" in model.config.model_type:  # its own `generate` ends there
        named.append(getattr(parts[-1], "sep_token_id", None))
    flat = [token for entry in named for token in (entry if isinstance(entry, list) else [entry])]
    wrong = next((token for token in flat if not isinstance(token, (int, type(None)))), None)
    if wrong is not None:
        raise ModelUnreadable(
            f"eos_token_id in {found.folder} is {wrong!r}, not a token's number",
            path=str(found.folder / "generation_config.json"), field="eos_token_id",
        )  # fmt: skip
    return frozenset(int(token) for token in flat if token is not None)


def _logit_count(model: Any, vocabulary: int) -> int:
    head = model.get_output_embeddings()
    return int(getattr(head, "out_features", None) or vocabulary)


def _prefix_bytes(options: Options, place: Place) -> int:
    if options.prefix_cache_gib is not None:
        return int(options.prefix_cache_gib * GIB)
    return int((free_bytes(place.device) or 0) * PREFIX_SHARE)


def _positions(options: Options, place: Place, config: Any, model: Any) -> int:
    """Positions of all slots together that the memory holds."""
    share = int((free_bytes(place.device) or 1 << 32) * KV_SHARE)
    allowed = share if options.kv_gib is None else int(options.kv_gib * GIB)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each: int = 2 * int(config.num_hidden_layers) * int(heads) * int(width) * model.dtype.itemsize
    return max(1, allowed // each)
