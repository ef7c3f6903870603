"""What a parsed command leaves open, settled from the model: its context, its quantization."""

import re
from dataclasses import replace

from memserve.engines.deployment import Deployment
from memserve.model.spec import ModelSpec

UNSTATED = 0
"""`Deployment.context` of a command that names none: the engine takes the model's own."""
UNBOUNDED = -1
"""The same for an engine that bounds no context: it is judged by the one that a plan would assume."""
LARGEST = -2
"""The same for an engine that takes the longest that fits."""
FALLBACK_CONTEXT = 8192
METHODS = (
    ("nvfp4", "nvfp4"), ("mxfp4", "mxfp4"), ("mxfp8", "mxfp8"), ("w4a8", "w4a8"), ("qoq", "w4a8"),
    ("modelslim", "w8a8"), ("ascend", "w8a8"), ("w8a8_fp8", "fp8"), ("w8a8", "w8a8"), ("w4a16", "w4a16"),
    ("bitsandbytes", "nf4"), ("bnb", "nf4"), ("nf4", "nf4"), ("llm_int8", "int8"), ("int8", "int8"),
    ("awq", "awq"), ("gptq", "gptq"), ("fp8", "fp8"), ("ptpc", "fp8"), ("gguf", "gguf-q4_k_m"),
    ("int4", "w4a16"), ("auto-round", "gptq"),
)  # fmt: skip
"""Words in an engine's own quantization names, the most telling first, and memserve's method."""


def method(word: str | None) -> str:
    """memserve's method for what an engine calls its quantization."""
    if word is None:
        return "none"
    plain = re.sub(r"[\s-]+", "_", word.lower())
    return next((known for part, known in METHODS if part in plain), "none")


def completed(deployment: Deployment, model: ModelSpec, asked: int | None = None) -> Deployment:
    """The deployment with the model's own context and storage where the command said nothing.

    `asked` is the context that the caller has in mind, where the command bounds none.
    """
    stored = model.quantization
    context = deployment.context
    if context == UNBOUNDED:
        context = asked or min(model.max_context or FALLBACK_CONTEXT, FALLBACK_CONTEXT)
    if context in (UNSTATED, LARGEST):
        context = model.max_context or FALLBACK_CONTEXT
    named = deployment.quantization
    quantization = stored.method if stored and not _one_of_its_files(stored.method, named) else named
    online = stored is None and deployment.quantization != "none"
    options = (*deployment.options, ("online", "true")) if online else deployment.options
    return replace(deployment, context=context, quantization=quantization, options=options)


def _one_of_its_files(stored: str, named: str) -> bool:
    """A GGUF repository holds a file for each level, of which the command names one."""
    return stored.startswith("gguf") and named.startswith("gguf")
