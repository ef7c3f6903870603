"""The embedded default: a small model that needs no GPU, no hub and no key, on OpenVINO."""

from dataclasses import replace
from typing import Any

from memserve.protocol import Capabilities, Task

WHOLE = "embedded_ignore_eos"
"""A request's extra: the answer is as long as `max_tokens` says, which is how speed is measured."""
GENERATING = Capabilities(
    backend="embedded", device="cpu", tasks=frozenset({"generate"}), chat=True, tools=True,
    temperature=True, top_p=True, schema=True, regex=True, choices=True, max_tokens=True, stop=True,
    usage=True, raw=True, token_ids=True, top_k=True, min_p=True, seed=True, n=True,
    logprobs=20, score=True, truncate=True, stream=True, returns_token_ids=True,
    deterministic=True, count_tokens=True, tokenizer=True, cancel=True, batches=True,
    extras=frozenset({WHOLE}),
    notes=("SmolLM2-135M-Instruct in 4 bits: real text, not good text",),
)  # fmt: skip
EMBEDDING = Capabilities(
    backend="embedded", device="cpu", tasks=frozenset({"embed"}), usage=True, deterministic=True,
    batches=True, roles=frozenset({"query", "document"}), normalize=True, dimensions=True,
)  # fmt: skip
RERANKING = Capabilities(
    backend="embedded",
    device="cpu",
    tasks=frozenset({"rerank"}),
    usage=True,
    deterministic=True,
    batches=True,
    notes=("the cosine of two vectors, not a cross-encoder",),
)
AT_BEST = replace(
    GENERATING, tasks=frozenset({"generate", "embed", "rerank"}), roles=EMBEDDING.roles, normalize=True,
    dimensions=True,
)  # fmt: skip


class EmbeddedBackend:
    """What `memserve.generator()`, `embedder()` and `reranker()` open when nothing is named."""

    name = "embedded"
    default = True
    """It answers when no backend is named."""
    own_names = ("default", "smollm2", "minilm")
    """What its own models are called here, whatever else has such a name."""

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do; loads no engine."""
        return AT_BEST

    def open(self, model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
        """The embedded model for a task; a model that is named goes to the backend hf."""
        from memserve_embedded.engine import open_engine

        return open_engine(model, task=task, **options)


backend = EmbeddedBackend()
