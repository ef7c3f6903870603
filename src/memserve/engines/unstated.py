"""What a parsed command leaves open, settled from the model: its context, its quantization."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memserve.engines.deployment import Deployment
    from memserve.model.spec import ModelSpec

UNSTATED = 0
"""`Deployment.context` of a command that names none."""
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


def completed(deployment: Deployment, model: ModelSpec) -> Deployment:
    """The deployment with the model's own context and storage where the command said nothing."""
    stored = model.quantization
    context = deployment.context or model.max_context or FALLBACK_CONTEXT
    quantization = stored.method if stored else deployment.quantization
    online = stored is None and deployment.quantization != "none"
    options = (*deployment.options, ("online", "true")) if online else deployment.options
    return replace(deployment, context=context, quantization=quantization, options=options)
