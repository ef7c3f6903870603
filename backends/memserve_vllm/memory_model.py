"""The model as a command loads it: without encoders or head, with draft layers and adapters' buffers."""

from dataclasses import replace

from memserve.memory.formats import DTYPE_BYTES
from memserve.model.memo import remembered
from memserve.model.spec import ModelSpec, Weight
from memserve_vllm import memory_regime
from memserve_vllm.memory_run import Run

ADAPTED = ("attention", "mlp", "shared_expert", "mixer", "expert")


def loaded(run: Run) -> Run:
    """The start with what its flags leave out of the model and put into it."""
    deployment, model = run.deployment, run.model
    if model.towers and deployment.option("language-model-only") == "true":
        model = remembered(model, "text", lambda: replace(run.model, towers=()))
    if memory_regime.pools(run) and any(weight.part == "head" for weight in model.top):
        whole = model
        model = remembered(whole, "headless", lambda: replace(whole, top=headless(whole)))
    if model.mtp_layers and "mtp" in (deployment.option("speculative-config") or ""):
        alone = model
        model = remembered(alone, "drafting", lambda: drafting(alone))
    return run if model is run.model else replace(run, model=model)


def headless(model: ModelSpec) -> tuple[Weight, ...]:
    """What follows the layers of a model that writes nothing."""
    return tuple(weight for weight in model.top if weight.part != "head")


def drafting(model: ModelSpec) -> ModelSpec:
    """With the layers that foretell further tokens: of the last kind that keeps a cache for each token."""
    kinds = [block for block in model.blocks if block.mixer.kind in ("full", "mla")]
    return replace(model, blocks=(*model.blocks, *kinds[-1:] * model.mtp_layers))


def adapters_bytes(run: Run) -> int:
    """LoRA's buffers on one rank, made when the model is loaded (lora/layers: create_lora_weights)."""
    option = run.deployment.option
    if option("enable-lora") != "true":
        return 0
    ranks = run.deployment.layout.tensor
    sharded = option("fully-sharded-loras") == "true"
    widths = sum(
        width(weight, ranks, sharded=sharded)
        for block in run.model.blocks
        for weight in block.weights
        if weight.linear and weight.part in ADAPTED
    )
    element = DTYPE_BYTES.get(option("lora-dtype") or "", run.element)
    many = int(option("max-loras") or 1) * int(option("max-lora-rank") or 16)
    return round(many * widths * element / run.deployment.layout.pipeline)


def width(weight: Weight, ranks: int, *, sharded: bool) -> float:
    """Rows of both factors of one adapted matrix for each rank of the adapter."""
    out, taken = weight.shape[-2:]
    whole = ranks if sharded else 1
    if weight.shard == "row":
        return weight.count * (taken / ranks + out / whole)
    return weight.count * (taken / whole + out / ranks)
