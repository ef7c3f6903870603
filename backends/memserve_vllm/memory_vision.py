"""What profiling a multimodal model with its largest image takes beside the language model."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memserve.engines.rules.version import within
from memserve.model.memo import remembered
from memserve.model.spec import ModelSpec
from memserve_vllm import memory_regime
from memserve_vllm.memory_run import Batch, Run


@dataclass(frozen=True)
class Image:
    """The largest image of a family: what goes in and what comes out of the encoder."""

    patches: int
    tokens: int
    pixels: int
    """Numbers per patch."""
    outputs: int = 1
    """Widths of the language model that each token carries (deepstack: more than one)."""
    padded: int = 0
    """Tokens of the largest video, to which outputs were padded up to 0.16."""


OTHER = Image(4096, 1024, 588)
LARGE = Image(65536, 16384, 1176)
IMAGES = {
    "qwen2_vl": LARGE, "qwen2_5_vl": LARGE, "qwen3_5": Image(65536, 16384, 1536),
    "qwen3_5_moe": Image(65536, 16384, 1536), "qwen3_vl": Image(65536, 16384, 1536, 4, 153600),
    "qwen3_vl_moe": Image(65536, 16384, 1536, 4, 153600), "gemma3": Image(4096, 256, 588),
    "gemma4": Image(2520, 280, 768), "mistral3": Image(12100, 3025, 588), "pixtral": Image(4096, 4096, 768),
    "llava": Image(576, 576, 588), "llava_next": Image(2880, 2880, 588), "llama4": Image(9792, 2448, 588),
    "internvl": Image(13312, 3328, 588), "internvl_chat": Image(13312, 3328, 588),
}  # fmt: skip
"""By model_type: max_pixels of the processors' defaults over the patch size (vLLM 0.19.1 models/*.py)."""


def largest(model: ModelSpec) -> Image:
    """The image that the profile is made with."""
    return IMAGES.get(model.model_type, OTHER)


def items(image: Image, batch: Batch) -> int:
    """Images in one profiling batch: as many as the encoder budget holds."""
    return max(1, max(batch.tokens, image.tokens) // image.tokens)


def profiled(run: Run) -> bool:
    """Whether vLLM runs the encoders at start: not if no image may be sent, or if it is told not to."""
    deployment = run.deployment
    if not run.model.towers or deployment.option("skip-mm-profiling") == "true":
        return False
    since, before = run.row("vision").get("v2_without", (None, None))
    second = since and within(deployment.engine_version, since, before)
    if second and memory_regime.runner(run).value == "V2":
        return False
    limits = deployment.option("limit-mm-per-prompt")
    return limits is None or any(digit in "123456789" for digit in limits)


def vision_kept(model: ModelSpec, batch: Batch, element: int, row: Mapping[str, Any]) -> float:
    """Pixels and encoder outputs, which stay while the language model is profiled."""
    image = largest(model)
    number = items(image, batch)
    longest = image.padded if row.get("padded") else 0
    outputs = max(number * image.tokens, longest) * image.outputs * model.hidden
    return float(row["kept"] * (outputs + number * image.patches * image.pixels) * element)


def vision_bytes(model: ModelSpec, batch: Batch, element: int, row: Mapping[str, Any]) -> float:
    """The encoder's own peak."""
    image = largest(model)
    running = items(image, batch) * image.patches * tower_width(model) * row["widths"] * element
    return float(running + vision_kept(model, batch, element, {**row, "padded": False}))


def tower_width(model: ModelSpec) -> int:
    """The encoder's hidden width: what most of its matrices take in."""
    return remembered(model, "tower", lambda: _tower_width(model))


def _tower_width(model: ModelSpec) -> int:
    widths = Counter(weight.shape[-1] for weight in model.towers if len(weight.shape) == 2)
    return widths.most_common(1)[0][0] if widths else 0
