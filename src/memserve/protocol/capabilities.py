"""What a backend can do."""

from dataclasses import dataclass

from memserve.protocol.values import Task


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend can do. Calling code, the docs' matrix and the conformance suite read this one object.

    A field that is False (or None) means: refused before any work, with `Unsupported`.
    """

    backend: str
    engine: str | None = None
    """Engine and version as found, "vllm 0.32.0"."""
    model: str | None = None
    device: str | None = None
    tasks: frozenset[Task] = frozenset({"generate"})
    context: int | None = None
    """The largest prompt + answer in tokens; None: not known before a call."""
    # what a prompt may be
    chat: bool = False
    raw: bool = False
    token_ids: bool = False
    images: bool = False
    tools: bool = False
    # settings that are honoured
    temperature: bool = False
    max_temperature: float | None = None
    """The hottest that is taken; None: no limit is known."""
    top_p: bool = False
    max_tokens: bool = False
    top_k: bool = False
    min_p: bool = False
    seed: bool = False
    stop: bool = False
    max_stop: int | None = None
    n: bool = False
    max_n: int | None = None
    logprobs: int = 0
    """The most alternatives per token that can be asked for; 0: none at all."""
    score: bool = False
    schema: bool = False
    regex: bool = False
    choices: bool = False
    truncate: bool = False
    thinking: frozenset[str] = frozenset()
    """What `thinking` may ask for: "on", "off", "budget"."""
    template: bool = False
    """Variables of the chat template are passed on."""
    stream: bool = False
    extras: frozenset[str] = frozenset()
    # what an answer carries
    returns_token_ids: bool = False
    usage: bool = False
    deterministic: bool = False
    """Greedy answers repeat to the token, alone or in company."""
    count_tokens: bool = False
    tokenizer: bool = False
    """`encode` and `decode`; with `score`, `score_text`."""
    cancel: bool = False
    batches: bool = False
    """A local engine: a long list in one call is much faster than many calls (`memserve.run` feeds it so)."""
    # embedding and reranking
    roles: frozenset[str] = frozenset()
    normalize: bool = False
    dimensions: bool = False
    """Shorter vectors may be asked for."""
    notes: tuple[str, ...] = ()
