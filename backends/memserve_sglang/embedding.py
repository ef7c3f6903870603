"""SGLang's embedding models: vectors as its pooler gives them, normalized or cut on request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput
from memserve.protocol import Embeddings, Usage
from memserve_sglang import starting
from memserve_sglang.engine import capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Embedding:
    """SGLang normalizes what it pools, so bare vectors are not to be had."""

    def __init__(self, engine: Any, model: str, version: str) -> None:
        self._engine = engine
        self.identity = {"model": model, "engine": f"sglang {version}"}
        self.capabilities = replace(
            capabilities, engine=f"sglang {version}", model=model, device=engine.server_args.device,
            tasks=frozenset({"embed"}), chat=False, score=False, stream=False, roles=frozenset(),
            normalize=False,
        )  # fmt: skip

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any]) -> Embedding:
        """Start SGLang as an embedding engine."""
        import sglang

        return cls(starting.start(model, options, is_embedding=True), model, sglang.__version__)

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One float32 row a text; a cut row is normalized again."""
        import numpy as np

        outputs = self._engine.encode(list(texts))
        vectors = np.array([one["embedding"] for one in outputs], dtype=np.float32)
        if dimensions is not None and dimensions > vectors.shape[1]:
            raise InvalidInput(f"dimensions={dimensions}: this model has {vectors.shape[1]}")
        if dimensions is not None:
            vectors = vectors[:, :dimensions]
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        used = sum(one["meta_info"]["prompt_tokens"] for one in outputs)
        return Embeddings(vectors, Usage(prompt_tokens=used), self.capabilities.model)

    def close(self) -> None:
        """End the child processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()
