"""The embedding engine: vectors equal to sentence-transformers', from the checkpoint's own files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput
from memserve.protocol import Capabilities, Embeddings, Usage
from memserve_hf.capabilities import ENCODING
from memserve_hf.decoding.worker import Worker
from memserve_hf.encoding.encoder import Encoder, normalized, torch_forward
from memserve_hf.encoding.modules import classes, recipe
from memserve_hf.opening import inspection
from memserve_hf.opening.claim import Checkpoint
from memserve_hf.opening.device import Place, choose, release
from memserve_hf.opening.fitting import refuse_too_large
from memserve_hf.opening.inspection import identity
from memserve_hf.opening.installed import present
from memserve_hf.opening.loading import load_model, load_tokenizer
from memserve_hf.opening.packing import pack
from memserve_hf.options import Options

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
    found = inspection.find(model, options)
    place = choose(options, found.dtype)
    documents = queries = _encoder(found, options, place)
    if options.query_model:
        queries = _encoder(inspection.find(options.query_model, options), options, place)
    capabilities = replace(
        ENCODING, engine=f"transformers {present('transformers')}", model=model, device=place.described,
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
