"""What the embedded models can do."""

from dataclasses import replace

from memserve.protocol import Capabilities

GENERATING = Capabilities(
    backend="embedded", device="cpu", tasks=frozenset({"generate"}), chat=True, temperature=True,
    top_p=True, max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True,
    seed=True, n=True, logprobs=20, score=True, truncate=True, stream=True, returns_token_ids=True,
    deterministic=True, count_tokens=True, tokenizer=True, cancel=True, batches=True,
    notes=("SmolLM2-135M-Instruct in 4 bits: real text, not good text",),
)  # fmt: skip
EMBEDDING = Capabilities(
    backend="embedded", device="cpu", tasks=frozenset({"embed"}), usage=True, deterministic=True,
    batches=True, roles=frozenset({"query", "document"}), normalize=True, dimensions=True,
)  # fmt: skip
AT_BEST = replace(
    GENERATING, tasks=GENERATING.tasks | EMBEDDING.tasks, roles=EMBEDDING.roles, normalize=True,
    dimensions=True,
)  # fmt: skip
