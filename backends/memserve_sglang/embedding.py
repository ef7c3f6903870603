"""SGLang's embedding models: vectors as its pooler gives them, normalized or cut on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memserve.errors import Closed, InvalidInput
from memserve.protocol import Embeddings, Usage
from memserve_sglang.capabilities import capabilities
from memserve_sglang.host import Host


class Embedding:
    """SGLang normalizes what it pools, so bare vectors are not to be had."""

    def __init__(self, host: Host, model: str) -> None:
        self._host: Host | None = host
        engine = f"sglang {host.facts['version']}"
        self.identity = {"model": model, "engine": engine, "dtype": host.facts["dtype"]}
        self.capabilities = replace(
            capabilities, engine=engine, model=model, device=host.facts["device"], tasks=frozenset({"embed"}),
            chat=False, score=False, stream=False, roles=frozenset(), normalize=False,
        )  # fmt: skip

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any]) -> Embedding:
        """Start SGLang as an embedding engine."""
        return cls(Host(model, {**options, "is_embedding": True}), model)

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One float32 row a text; a cut row is normalized again."""
        import numpy as np

        if self._host is None:
            raise Closed("this engine is closed")
        outputs = self._host.call("encode", texts=list(texts))
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
        host, self._host = self._host, None
        if host is not None:
            host.close()
