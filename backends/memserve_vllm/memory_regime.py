"""Which way a release takes at start: engine, model runner, sampler, block size, graphs in the budget."""

from collections.abc import Iterable
from typing import NamedTuple

from memserve.engines.rules.version import within
from memserve_vllm.memory_run import Run

LAST_V0 = "0.11.0"
RUNNER_SWITCH = "0.12.0"
TRITON_ROWS = 8
"""Below so many rows the PyTorch sort is taken instead of Triton's kernel."""
IMAGES = ("vllm/vllm-openai", "rocm/vllm")
POOLING = {"runner": {"pooling"}, "task": {"embed", "embedding", "classify", "score", "reward"},
           "convert": {"embed", "classify", "reward"}}  # fmt: skip
HOPPER = 90
STATES = ("linear", "mamba")


class Choice(NamedTuple):
    """What is taken, and where that was read or said."""

    value: str | int | bool
    source: str


def pools(run: Run) -> bool:
    """Whether it embeds, scores or classifies instead of writing."""
    asked = any(run.deployment.option(name) in words for name, words in POOLING.items())
    return run.model.encoder_only or bool(run.model.pooling) or asked


def has(run: Run, trait: str) -> bool:
    """One trait by which a release leaves its usual way."""
    deployment, model = run.deployment, run.model
    if trait == "pooling":
        return pools(run)
    if trait == "experts":
        return any(block.experts for block in model.blocks)
    if trait == "quantized":
        return deployment.quantization != "none"
    if trait == "states":
        return any(block.mixer.kind in STATES for block in model.blocks)
    if trait == "float32":
        return deployment.dtype in ("float32", "float")
    if trait == "fp8 cache":
        return deployment.kv_dtype.startswith("fp8") and run.machine.card.sm not in (None, HOPPER)
    if trait == "ngram":
        return trait in (deployment.option("speculative-config") or "")
    if trait == "pipeline":
        ray = deployment.option("distributed-executor-backend") == "ray"
        return deployment.layout.pipeline > 1 and not ray
    return deployment.option(trait) is not None or deployment.quantization.startswith(trait)


def all_of(run: Run, traits: Iterable[str]) -> bool:
    """Whether there are traits, and each holds."""
    found = [has(run, trait) for trait in traits]
    return bool(found) and all(found)


def any_of(run: Run, traits: Iterable[str]) -> bool:
    """Whether one of them holds."""
    return any(has(run, trait) for trait in traits)


def engine(run: Run) -> Choice:
    """V0 or V1."""
    row, said = run.row("engine"), run.deployment.variable("VLLM_USE_V1")
    if said in ("0", "1") and within(run.deployment.engine_version, None, LAST_V0):
        return Choice(f"V{said}", f"VLLM_USE_V1={said} before the command")
    value = 0 if any_of(run, row.get("not", ())) else row["value"]
    return Choice(f"V{value}", row["source"])


def runner(run: Run) -> Choice:
    """The V1 or the V2 model runner."""
    row, said = run.row("runner"), run.deployment.variable("VLLM_USE_V2_MODEL_RUNNER")
    if said in ("0", "1") and within(run.deployment.engine_version, RUNNER_SWITCH, None):
        return Choice(f"V{int(said) + 1}", f"VLLM_USE_V2_MODEL_RUNNER={said} before the command")
    architecture = run.model.architecture
    dense = bool(row.get("dense")) and not any_of(run, ("experts", "states"))
    second = row.get("all", False) or architecture in row["listed"] or dense
    left_out = run.machine.card.vendor == "amd" and architecture in row.get("rocm_v1", ())
    second = second and not left_out and not any_of(run, row.get("not", ()))
    return Choice("V2" if second else "V1", row["source"])


def sampler(run: Run) -> Choice:
    """Whose kernels sample: pytorch, triton, flashinfer or aiter."""
    row, variable = run.row("sampler_path"), run.deployment.variable
    if "aiter" in row and variable("VLLM_ROCM_USE_AITER") == "1":
        return Choice(row["aiter"], "VLLM_ROCM_USE_AITER=1 before the command")
    said = variable("VLLM_USE_FLASHINFER_SAMPLER")
    if said in ("0", "1"):
        return Choice(row[said], f"VLLM_USE_FLASHINFER_SAMPLER={said} before the command; {row['source']}")
    if "image" not in row:
        few = row["unset"] == "triton" and run.batch.sequences < TRITON_ROWS
        return Choice("pytorch" if few else row["unset"], row["source"])
    image = run.deployment.image
    if any(name in image for name in IMAGES) and run.batch.v1:
        return Choice(row["image"], f"{row['source']}; in the image {image} it is")
    guess = f"; installed with pip (assumed), in the image vllm/vllm-openai it would be {row['image']}"
    return Choice(row["unset"], row["source"] + guess)


def block(run: Run) -> Choice:
    """Tokens of one block, before a hybrid model's states raise it."""
    row = run.row("block")
    if run.deployment.block_size:
        return Choice(run.deployment.block_size, "--block-size of the command")
    kinds = {b.mixer.kind for b in run.model.blocks}
    if "mla" not in kinds:
        return Choice(row["value"], row["source"])
    sparse = any(b.mixer.index_dim for b in run.model.blocks)
    return Choice(row["sparse" if sparse else "latent"], row["source"])


def graphs(run: Run) -> Choice:
    """Whether the budget loses what the release estimates for CUDA graphs."""
    row = run.row("graph_estimate")
    if run.deployment.eager:
        return Choice(False, "--enforce-eager of the command: no graphs")
    said = run.deployment.variable("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS")
    on = said if said in ("0", "1") and row["switch"] is not None else row["switch"]
    second = runner(run).value == "V2"
    return Choice(bool(int(on or 0)) and bool(row["v2"] if second else row["value"]), row["source"])
