"""Embedding models in GGUF form."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Embeddings, Usage
from memserve_llamacpp.capabilities import capabilities


class Embedding:
    """Pooled vectors; a GGUF file carries no prompts for roles, so there are none."""

    def __init__(self, llama: Any, model: str) -> None:
        import llama_cpp

        self._llama = llama
        self.identity = {"model": model, "engine": f"llama-cpp-python {llama_cpp.__version__}"}
        self.capabilities = replace(
            capabilities, engine=f"llama-cpp-python {llama_cpp.__version__}", model=model,
            tasks=frozenset({"embed"}), chat=False, score=False, stream=False, context=llama.n_ctx(),
        )  # fmt: skip

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One float32 row a text."""
        import numpy as np

        rows, used = self._llama.embed(list(texts), normalize=False, return_count=True)
        vectors = np.array(rows, dtype=np.float32)
        if vectors.ndim != 2:
            raise InvalidInput(
                "this GGUF model does not pool", hint="pass pooling_type=1 (mean), 2 (cls) or 3 (last)"
            )
        if dimensions is not None and dimensions > vectors.shape[1]:
            raise InvalidInput(f"dimensions={dimensions}: this model has {vectors.shape[1]}")
        vectors = vectors[:, :dimensions]
        if normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Embeddings(vectors, Usage(prompt_tokens=int(used)), self.capabilities.model)

    def close(self) -> None:
        """Free the model."""
        llama, self._llama = self._llama, None
        if llama is not None:
            llama.close()
