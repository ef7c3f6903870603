"""vLLM's pooling models in this process: embeddings with the model's own prompts, and reranking."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Capabilities, Embeddings, Ranking, Task, Usage
from memserve_vllm import starting
from memserve_vllm.engine import capabilities
from memserve_vllm.starting import spelling


def open_pooling(model: str, task: Task, options: Mapping[str, Any]) -> Any:
    """Start vLLM with a pooler."""
    import vllm

    row = spelling("pooling", vllm.__version__)
    if task == "rerank":
        arguments = {**row["arguments"], **({"convert": "classify"} if "convert" in row["arguments"] else {})}
        return Reranking(starting.start(model, options, **arguments), model, vllm.__version__)
    return Embedding(starting.start(model, options, **row["arguments"]), model, vllm.__version__)


class _Pooling:
    """An engine with a pooler, and its end."""

    def __init__(self, llm: Any, model: str, version: str) -> None:
        self._llm, self._version = llm, version
        self._config = llm.llm_engine.vllm_config.model_config
        self._tokenizer = llm.get_tokenizer()
        self.identity = {"model": model, "engine": f"vllm {version}", "dtype": str(self._config.dtype)}

    def _ids(self, text: str) -> list[int]:
        """Token ids, cut at the context as sentence-transformers does."""
        return list(self._tokenizer.encode(text)[: self._config.max_model_len])

    def close(self) -> None:
        """End the engine and give its memory back."""
        llm, self._llm = self._llm, None
        if llm is not None:
            starting.stop(llm)

    def _known(self, model: str, **more: Any) -> Capabilities:
        from vllm.platforms import current_platform

        return replace(
            capabilities, engine=f"vllm {self._version}", model=model, device=current_platform.device_type,
            context=self._config.max_model_len, chat=False, score=False, stream=False, **more,
        )  # fmt: skip


class Embedding(_Pooling):
    """Vectors that equal sentence-transformers': bare from vLLM, then the model's own modules."""

    def __init__(self, llm: Any, model: str, version: str) -> None:
        super().__init__(llm, model, version)
        self._prompts = _prompts(model)
        self._unit = _normalizes(model)
        self._size = int(self._config.embedding_size) if hasattr(self._config, "embedding_size") else None
        self.capabilities = self._known(
            model, tasks=frozenset({"embed"}), roles=frozenset({"query", "document", *self._prompts})
        )

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One float32 row a text."""
        import numpy as np

        from vllm import PoolingParams

        prompt = self._prompts.get(role, "") if role else ""
        asked = [{"prompt_token_ids": self._ids(prompt + text)} for text in texts]
        bare = PoolingParams(**spelling("pooling", self._version)["bare"])
        outputs = self._llm.embed(asked, pooling_params=bare, use_tqdm=False)
        vectors = np.array([one.outputs.embedding for one in outputs], dtype=np.float32)
        if dimensions is not None and dimensions > vectors.shape[1]:
            raise InvalidInput(f"dimensions={dimensions}: this model has {vectors.shape[1]}")
        vectors = vectors[:, :dimensions]
        if self._unit if normalize is None else normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        used = sum(len(one["prompt_token_ids"]) for one in asked)
        return Embeddings(vectors, Usage(prompt_tokens=used), self.capabilities.model)


class Reranking(_Pooling):
    """Cross-encoders through vLLM's `score`."""

    def __init__(self, llm: Any, model: str, version: str) -> None:
        super().__init__(llm, model, version)
        self.capabilities = self._known(model, tasks=frozenset({"rerank"}), roles=frozenset())

    def rerank(self, query: str, documents: Sequence[str]) -> Ranking:
        """One score a document, in their order."""
        if not documents:
            return Ranking((), Usage(prompt_tokens=0), self.capabilities.model)
        outputs = self._llm.score(query, list(documents), use_tqdm=False)
        used = sum(len(one.prompt_token_ids) for one in outputs)
        scores = tuple(float(one.outputs.score) for one in outputs)
        return Ranking(scores, Usage(prompt_tokens=used), self.capabilities.model)


def _read(model: str, name: str) -> Any:
    path = Path(model) / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _prompts(model: str) -> dict[str, str]:
    """The query and document prompts that the model's own files name."""
    told = (_read(model, "config_sentence_transformers.json") or {}).get("prompts") or {}
    known = {**told, "document": told.get("document", told.get("passage", ""))}
    return {role: text for role, text in known.items() if text}


def _normalizes(model: str) -> bool:
    """Whether the model's own modules end in a normalization; without modules, vectors stay bare."""
    modules = _read(model, "modules.json") or []
    return any(str(module.get("type", "")).endswith("Normalize") for module in modules)
