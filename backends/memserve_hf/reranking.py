"""The reranking engine: a cross-encoder's score for a query with each document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from memserve.errors import ModelUnreadable
from memserve.protocol import Capabilities, Ranking, Usage
from memserve_hf.capabilities import ENCODING
from memserve_hf.decoding.worker import Worker
from memserve_hf.embedding import BATCH_TOKENS, BATCH_TOKENS_ELSEWHERE
from memserve_hf.encoding.encoder import Tokens, batches, pad
from memserve_hf.opening import inspection
from memserve_hf.opening.device import choose, release
from memserve_hf.opening.fitting import refuse_too_large
from memserve_hf.opening.installed import present
from memserve_hf.opening.loading import load_model, load_tokenizer
from memserve_hf.opening.packing import pack
from memserve_hf.options import Options

_DEFAULT_LENGTH = 512


class RerankingEngine:
    """One sequence classifier with one label."""

    def __init__(self, capabilities: Capabilities, model: Any, tokenizer: Any, *, sigmoid: bool, longest: int,
                 batch_tokens: int, worker: Worker) -> None:  # fmt: skip
        self.capabilities = capabilities
        self._model, self._tokenizer, self._sigmoid = model, tokenizer, sigmoid
        self._longest, self._batch_tokens, self._worker = longest, batch_tokens, worker

    def rerank(self, query: str, documents: Sequence[str]) -> Ranking:
        """One score a document, in the order of the documents."""
        return self._worker.call(lambda: self._rank(query, list(documents)))

    def close(self) -> None:
        """Give the memory back; a second call does nothing."""
        self._worker.close()
        self._model = None
        release()

    def _rank(self, query: str, documents: list[str]) -> Ranking:
        if not documents:
            return Ranking((), Usage(prompt_tokens=0), self.capabilities.model)
        made = self._tokenizer([query] * len(documents), documents, truncation="longest_first",
                               max_length=self._longest, padding=False)  # fmt: skip
        types = made.get("token_type_ids")
        rows = [Tokens(ids, types[i] if types else None) for i, ids in enumerate(made["input_ids"])]
        scores = [0.0] * len(rows)
        for batch in batches([len(row.ids) for row in rows], self._batch_tokens):
            inputs = pad([rows[i] for i in batch], self._tokenizer.pad_token_id or 0, self._model.device)
            logits = self._model(**inputs).logits[:, 0].float()
            for i, score in zip(
                batch, (torch.sigmoid(logits) if self._sigmoid else logits).tolist(), strict=True
            ):
                scores[i] = score
        usage = Usage(prompt_tokens=sum(len(row.ids) for row in rows))
        return Ranking(tuple(scores), usage, self.capabilities.model)


def reranking(model: str, options: Options) -> RerankingEngine:
    """Load a cross-encoder."""
    found = inspection.find(model, options)
    place = choose(options, found.dtype)
    tokenizer = load_tokenizer(found, options)
    refuse_too_large(found, options, place)
    loaded = load_model(found, options, place, ("AutoModelForSequenceClassification",))
    pack(loaded, options, place)
    if loaded.config.num_labels != 1:
        path = str(found.folder / "config.json")
        raise ModelUnreadable(f"{path}: a reranker has one label, not {loaded.config.num_labels}",
                              path=path, field="id2label")  # fmt: skip
    longest = options.max_length or _longest(tokenizer, loaded.config)
    capabilities = replace(
        ENCODING, engine=f"transformers {present('transformers')}", model=model, device=place.described,
        tasks=frozenset({"rerank"}), context=longest, deterministic=place.dtype == "float32",
    )  # fmt: skip
    return RerankingEngine(
        capabilities, loaded, tokenizer, sigmoid=_wants_sigmoid(found.config), longest=longest,
        batch_tokens=options.batch_tokens or BATCH_TOKENS.get(place.kind, BATCH_TOKENS_ELSEWHERE),
        worker=Worker(None, "rerank"),
    )  # fmt: skip


def _wants_sigmoid(config: Mapping[str, Any]) -> bool:
    """As sentence-transformers' CrossEncoder: a sigmoid, unless the config names another function."""
    own = (config.get("sentence_transformers") or {}).get("activation_fn")
    name = own or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    return str(name).rpartition(".")[2] == "Sigmoid"


def _longest(tokenizer: Any, config: Any) -> int:
    limits = (getattr(tokenizer, "model_max_length", None), getattr(config, "max_position_embeddings", None))
    return int(min([limit for limit in limits if limit] or [_DEFAULT_LENGTH]))
