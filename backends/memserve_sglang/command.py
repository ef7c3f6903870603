"""What a `python -m sglang.launch_server` line asks for."""

from memserve.engines.command import Words
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.unstated import UNSTATED, method
from memserve.errors import InvalidInput

MODULE = "sglang.launch_server"
NUMBERS = (
    "swa-full-tokens-ratio", "mamba-full-memory-ratio", "max-mamba-cache-size", "cuda-graph-max-bs",
    "max-total-tokens",
)  # fmt: skip
"""Options that the account of memory reads as numbers."""


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of a launch line; None if it starts something else."""
    from memserve_sglang import backend

    words = backend.words(command)
    if words is None:
        return None
    named = words.text("model-path") or (words.bare[0] if words.bare else None)
    if not named:
        raise InvalidInput(
            "the command names no model", hint=f"write python -m {MODULE} --model-path MODEL ..."
        )
    return named, deployment_of(words)


def deployment_of(words: Words) -> Deployment:
    """What decides memory; every flag as it stands among the options."""
    chunk = words.text("chunked-prefill-size")
    return Deployment(
        backend="sglang", engine_version="", quantization=method(words.text("quantization")),
        dtype=words.text("dtype") or "auto", kv_dtype=words.text("kv-cache-dtype") or "auto",
        layout=layout_of(words), context=words.integer("context-length") or UNSTATED,
        utilization=words.share("mem-fraction-static"), max_sequences=words.integer("max-running-requests"),
        max_batched_tokens=None if chunk in (None, "-1") else words.integer("chunked-prefill-size"),
        block_size=words.integer("page-size"), eager=words.flag("disable-cuda-graph"),
        options=words.given(NUMBERS),
    )  # fmt: skip


def layout_of(words: Words) -> Layout:
    """tp is the number of all ranks; with DP attention, dp groups of them share attention."""
    tensor, pipeline, data = (words.count(f"{name}-parallel-size") for name in ("tensor", "pipeline", "data"))
    experts = words.count("expert-parallel-size") > 1 or words.flag("enable-ep-moe")
    if not words.flag("enable-dp-attention"):
        return Layout(tensor, pipeline, data, experts)
    return Layout(tensor, pipeline, 1, experts, attention_data=data)
