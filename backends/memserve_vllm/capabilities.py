"""What this backend can do at best, before a model is named; loads no engine."""

from memserve.protocol import Capabilities

capabilities = Capabilities(
    backend="vllm", tasks=frozenset({"generate", "embed", "rerank"}), chat=True, temperature=True,
    top_p=True, max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True,
    seed=True, n=True, logprobs=20, score=True, schema=True, regex=True, choices=True, truncate=True,
    stream=True, returns_token_ids=True, deterministic=True, count_tokens=True, tokenizer=True, batches=True,
    cancel=True,
    roles=frozenset({"query", "document"}), normalize=True, dimensions=True,
    notes=("greedy answers repeat to the token in float32, or with VLLM_BATCH_INVARIANT=1 from sm_80 on",),
)  # fmt: skip
