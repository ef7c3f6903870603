"""What this backend can do at best, before a model is named."""

from memserve.protocol import Capabilities

AT_BEST = Capabilities(
    backend="hf", tasks=frozenset({"generate", "embed", "rerank"}), chat=True, temperature=True, top_p=True,
    max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True, seed=True,
    n=True, logprobs=20, score=True, schema=True, regex=True, choices=True, truncate=True,
    thinking=frozenset({"on", "off", "budget"}), template=True, stream=True, returns_token_ids=True,
    deterministic=True, count_tokens=True, tokenizer=True, cancel=True, batches=True,
    roles=frozenset({"query", "document"}), normalize=True, dimensions=True,
    notes=("greedy answers repeat to the token in float32; half precision rounds differently in company",),
)  # fmt: skip

ENCODING = Capabilities(backend="hf", tasks=frozenset({"embed"}), usage=True, batches=True)
"""An encoder's: nothing of generation."""
