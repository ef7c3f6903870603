"""Vectors equal to sentence-transformers', and a cross-encoder's score for a query with each document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from memserve.errors import InvalidInput, ModelUnreadable
from memserve.missing import release_of
from memserve.protocol import Capabilities, Embeddings, Ranking, Usage
from memserve_hf.decoding.worker import Worker
from memserve_hf.encoding import Encoder, Tokens, batches, classes, normalized, pad, recipe, torch_forward
from memserve_hf.opening import checkpoint
from memserve_hf.opening.checkpoint import Checkpoint, identity, refuse_too_large
from memserve_hf.opening.device import Place, choose, release
from memserve_hf.opening.loading import load_model, load_tokenizer, pack
from memserve_hf.options import ENCODING, Options

if TYPE_CHECKING:
    from torch import Tensor


BATCH_TOKENS = {"cpu": 2048}
BATCH_TOKENS_ELSEWHERE = 65536


class EmbeddingEngine:
    """One encoder, or one for queries and one for documents."""

    def __init__(self, capabilities: Capabilities, identity: dict[str, str], documents: Encoder,
                 queries: Encoder, worker: Worker) -> None:  # fmt: skip
        self.capabilities = capabilities
        self.identity = identity
        self._documents, self._queries, self._worker = documents, queries, worker

    def embed(self, texts: Sequence[str], *, role: str | None = None, normalize: bool | None = None,
              dimensions: int | None = None) -> Embeddings:  # fmt: skip
        """Vectors in the order of the texts. `normalize=None` does as the model's own modules say."""
        if role is not None and role not in self.capabilities.roles:
            raise InvalidInput(
                f"unknown role {role!r}", hint=f"known: {', '.join(sorted(self.capabilities.roles))}"
            )
        encoder = self._queries if role == "query" else self._documents
        return self._worker.call(lambda: self._embed(encoder, texts, role, normalize, dimensions))

    def close(self) -> None:
        """Give the memory back; a second call does nothing."""
        self._worker.close()
        self._documents = self._queries = None  # type: ignore[assignment]
        release()

    def _embed(self, encoder: Encoder, texts: Sequence[str], role: str | None, normalize: bool | None,
               dimensions: int | None) -> Embeddings:  # fmt: skip
        vectors, tokens = encoder.encode(list(texts) or [""], role)
        width = vectors.shape[1]
        if dimensions is not None and not 0 < dimensions <= width:
            raise InvalidInput(f"dimensions={dimensions} is not within 1..{width}")
        unit = encoder.recipe.normalize if normalize is None else normalize
        vectors = _finished(vectors, unit, dimensions)
        if not texts:
            vectors, tokens = vectors[:0], 0
        return Embeddings(vectors.numpy(), Usage(prompt_tokens=tokens), self.capabilities.model)


def _finished(vectors: Tensor, unit: bool, dimensions: int | None) -> Tensor:
    if dimensions is not None:
        vectors = vectors[:, :dimensions]
    return (normalized(vectors) if unit else vectors).contiguous()


def embedding(model: str, options: Options) -> EmbeddingEngine:
    """Load one encoder, or two with `query_model=`."""
    found = checkpoint.find(model, options)
    place = choose(options, found.dtype)
    documents = queries = _encoder(found, options, place)
    if options.query_model:
        queries = _encoder(checkpoint.find(options.query_model, options), options, place)
    capabilities = replace(
        ENCODING, engine=f"transformers {release_of('transformers')}", model=model, device=place.described,
        context=documents.longest, roles=documents.recipe.roles | queries.recipe.roles, normalize=True,
        dimensions=True, deterministic=place.dtype == "float32",
    )  # fmt: skip
    known = identity(found, options, place)
    return EmbeddingEngine(capabilities, known, documents, queries, Worker(None, "embed"))


def _encoder(found: Checkpoint, options: Options, place: Place) -> Encoder:
    steps = recipe(found, options)
    refuse_too_large(found, options, place)
    tokenizer = load_tokenizer(found, options)
    optional = () if "pooler" in steps.pooling else ("pooler.",)
    loaded = load_model(found, options, place, classes(found.config), optional)
    pack(loaded, options, place)
    config: Any = loaded.config.get_text_config()
    return Encoder(
        tokenizer, steps, torch_forward(loaded), device=loaded.device,
        longest=getattr(config, "max_position_embeddings", None),
        batch_tokens=options.batch_tokens or BATCH_TOKENS.get(place.kind, BATCH_TOKENS_ELSEWHERE),
        allow_pickle=options.allow_pickle,
    )  # fmt: skip


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
    found = checkpoint.find(model, options)
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
        ENCODING, engine=f"transformers {release_of('transformers')}", model=model, device=place.described,
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
