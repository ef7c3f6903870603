"""An encoder for MTEB, shaped like a SentenceTransformer: mteb.evaluate(Encoder("M", backend="B"), tasks)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from memserve.client import embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


class Encoder:
    """An embedding model on any backend."""

    def __init__(self, model: str | None = None, revision: str | None = None, *,
                 backend: str | None = None, device: str | None = None, **options: Any) -> None:  # fmt: skip
        named = {"revision": revision, "device": device}
        options |= {name: value for name, value in named.items() if value is not None}
        self.embedder = embedder(model, backend=backend, **options)

    def encode(self, inputs: str | Iterable[str | Mapping[str, Any]], *, prompt_type: Any = None,
               prompt_name: str | None = None, normalize_embeddings: bool | None = None,
               truncate_dim: int | None = None, **unused: Any) -> Vectors:  # fmt: skip
        """One vector a text, from a list of texts or from MTEB's batches; one vector for one text.

        The prompt's type is memserve's role, where the model has it. What only says how fast, or what else
        MTEB tells of the task, changes no vector.
        """
        texts = [inputs] if isinstance(inputs, str) else _texts(inputs)
        role = getattr(prompt_type, "value", prompt_type) or prompt_name
        known = role if prompt_name or role in self.embedder.capabilities.roles else None
        vectors: Vectors = self.embedder.embed(
            texts, role=known, normalize=normalize_embeddings or None, dimensions=truncate_dim
        ).vectors
        return vectors[0] if isinstance(inputs, str) else vectors

    def similarity(self, one: Vectors, other: Vectors) -> Vectors:
        """The cosine of each vector with each other one."""
        return _unit(one) @ _unit(other).T

    def similarity_pairwise(self, one: Vectors, other: Vectors) -> Vectors:
        """The cosine of each pair."""
        product: Vectors = (_unit(one) * _unit(other)).sum(axis=-1)
        return product

    @cached_property
    def mteb_model_meta(self) -> Any:
        """Who it is, for MTEB's results."""
        from mteb.models import ModelMeta

        known = self.embedder.capabilities
        name = str(known.model).strip("/").replace(" ", "-")
        named = "/".join(("memserve", *name.split("/"))[-2:])
        about = {"name": named, "revision": str(known.engine or known.backend).replace(" ", "-")}
        return ModelMeta.create_empty(overwrites={**about, "max_tokens": known.context})


def _texts(inputs: Iterable[str | Mapping[str, Any]]) -> list[str]:
    found: list[str] = []
    for item in inputs:
        if isinstance(item, str):
            found.append(item)
        else:
            found += item["text"]
    return found


def _unit(vectors: Any) -> Vectors:
    import numpy as np

    rows = np.atleast_2d(np.asarray(vectors, np.float32))
    unit: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return unit
