"""What this backend can do at best, before a model is named; loads no engine."""

from memserve.protocol import Capabilities

capabilities = Capabilities(
    backend="llamacpp", tasks=frozenset({"generate", "embed"}), chat=True, temperature=True, top_p=True,
    max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True, seed=True,
    n=True, logprobs=20, score=True, schema=True, choices=True, truncate=True, stream=True,
    returns_token_ids=True, deterministic=True, count_tokens=True, tokenizer=True, cancel=True,
    normalize=True, dimensions=True, roles=frozenset({"query", "document"}),
    notes=("one sequence at a time: the longest prefix that two prompts share is computed once",),
)  # fmt: skip
