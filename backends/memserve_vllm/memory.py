"""How vLLM divides one card at start-up: utilization x total = weights + peak + non-torch (+ graphs) + KV."""

from dataclasses import replace
from math import ceil

from memserve.engines.deployment import Deployment
from memserve.engines.memory import Assumption, Bars, Footprint
from memserve.engines.rules import within
from memserve.hardware.machine import GIB, Machine
from memserve.memory import additions
from memserve.memory.formats import DTYPE_BYTES
from memserve.memory.kv import LayerCache, element_bytes, layer_caches
from memserve.memory.weights import (
    Split,
    Storage,
    absorbed_bytes,
    partition,
    rope_bytes,
    stage_bytes,
    storage,
)
from memserve.model.spec import ModelSpec, Weight, remembered
from memserve_vllm import memory_run
from memserve_vllm.memory_pages import DS_MLA_TOKEN, INDEX_TOKEN, PagePlan, Pool, pool
from memserve_vllm.memory_peak import (
    deepstack_bytes,
    graph_bytes,
    graph_profile_blocks,
    graphs_inside,
    largest,
    latents,
    non_torch_bytes,
    peak,
)
from memserve_vllm.memory_run import Facts, Run, refused


def loaded(run: Run) -> Run:
    """The start with what its flags leave out of the model and put into it."""
    deployment, model = run.deployment, run.model
    if model.towers and deployment.option("language-model-only") == "true":
        model = remembered(model, "text", lambda: replace(run.model, towers=()))
    if model.towers and deployment.option("mm-encoder-tp-mode") == "data":
        split = model
        model = remembered(split, "whole towers", lambda: replace(split, towers=whole_on_each_card(split)))
    if memory_run.pools(run) and any(weight.part == "head" for weight in model.top):
        whole = model
        model = remembered(whole, "headless", lambda: replace(whole, top=headless(whole)))
    if model.mtp_layers and "mtp" in (deployment.option("speculative-config") or ""):
        alone = model
        model = remembered(alone, "drafting", lambda: additions.with_own_layers(alone))
    said = additions.draft_of(deployment)
    if said is not None:
        target = model
        model = remembered(target, ("draft", said), lambda: additions.with_draft(target, said))
    return run if model is run.model else replace(run, model=model)


def whole_on_each_card(model: ModelSpec) -> tuple[Weight, ...]:
    """Encoders that no card shares (mm_encoder_tp_mode data: vision.py is_vit_use_data_parallel)."""
    return tuple(replace(weight, shard="replicated") for weight in model.towers)


def headless(model: ModelSpec) -> tuple[Weight, ...]:
    """What follows the layers of a model that writes nothing."""
    return tuple(weight for weight in model.top if weight.part != "head")


def adapters_bytes(run: Run) -> int:
    """LoRA's buffers on one rank, made when the model is loaded (lora/layers: create_lora_weights)."""
    option = run.deployment.option
    if option("enable-lora") != "true":
        return 0
    widths = additions.adapted(
        run.model, run.deployment.layout.tensor, sharded=option("fully-sharded-loras") == "true"
    )
    element = DTYPE_BYTES.get(option("lora-dtype") or "", run.element)
    many = int(option("max-loras") or 1) * int(option("max-lora-rank") or 16)
    return round(many * widths * element / run.deployment.layout.pipeline)


OVERRIDE_CHECKED_SINCE = "0.20.1"
"""Before, V1 asked whether a request fits what was profiled, and overrode the blocks afterwards
(v1/core/kv_cache_utils.py get_kv_cache_configs)."""
STORED_KV_SINCE = "0.11.0"
"""From here on `auto` takes the dtype that the checkpoint's kv_cache_scheme names (attention/layer.py)."""


class VllmAccountant:
    """vLLM's own start-up, as arithmetic. `facts` are the tables of the backend that uses it."""

    backend = "vllm"
    block = 16

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card's memory as vLLM would."""
        run = self.run(model, machine, deployment)
        deployment = run.deployment
        total = machine.card.memory
        usable = ceil(total * self.utilization(run))
        weights, activation = max(self._stages(run), key=sum)
        non_torch, graphs = non_torch_bytes(run), graph_bytes(run)
        inside = round(self.withheld(run) + graphs_inside(run, graphs))
        shape = self.pool(run)
        left = deployment.kv_bytes or usable - weights - activation - non_torch - inside
        available = int(deployment.option("num-gpu-blocks-override") or 0) * shape.block_bytes or left
        blocks = shape.blocks(available)
        need = shape.blocks_per_request(deployment.context, run.batch.tokens)
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=activation, non_torch=non_torch,
            graphs=graphs, kv_cache=max(0, available) if shape.groups else 0,
            kv_tokens=shape.tokens(blocks, deployment.context, run.batch.tokens),
            max_concurrency=blocks / need if need else float(deployment.concurrency),
            bars=bars(run, weights, available, shape, deployment.context),
        )  # fmt: skip
        lacking = refused(run) or self.lacking(run, usable)
        if lacking:
            return footprint.fails("refused", lacking)
        late = run.batch.v1 and within(deployment.engine_version, None, OVERRIDE_CHECKED_SINCE)
        asked = need + int(run.row("pages").get("kept_back", 0))
        found = judged(footprint, deployment, left if late else available, shape, asked)
        profiled = graph_profile_blocks(run) * shape.block_bytes
        if found.outcome != "out_of_memory" and profiled and weights + non_torch + profiled > total:
            return footprint.fails(
                "out_of_memory", f"CUDA graphs are profiled with {profiled / GIB:.2f} GiB of KV cache, a "
                "block for every sequence, beside the weights: fewer --max-num-seqs, or --enforce-eager",
            )  # fmt: skip
        return found

    def run(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Run:
        """What every estimate is asked about, with nothing left open."""
        deployment = settled(model, deployment)
        return loaded(Run(self.facts, model, machine, deployment))

    def assumptions(
        self, model: ModelSpec, machine: Machine, deployment: Deployment
    ) -> tuple[Assumption, ...]:
        """What the release, the card and the environment decide."""

        run = self.run(model, machine, deployment)
        return assumptions(run, self.utilization(run), self.pool(run))

    def lacking(self, run: Run, usable: int) -> str:
        """What vLLM says before it loads anything if the card is not free enough; empty if it is."""
        row = run.row("taken_at_start")
        if not row["checked"] or run.deployment.kv_bytes:
            return ""
        spread = run.deployment.layout.cards > 1
        free = run.machine.card.memory - row["spread" if spread else "alone"] * GIB
        free = min((free, *(run.machine.free_memory or ())))
        if free >= usable:
            return ""
        asked = f"{self.utilization(run):g} of the card, {usable / GIB:.2f} GiB"
        return f"free memory at start, {free / GIB:.2f} GiB, is less than the utilization of {asked}"

    def _stages(self, run: Run) -> list[tuple[int, int]]:
        """Weights and torch peak of one rank of each pipeline stage."""
        layout = run.deployment.layout
        split = Split(layout.tensor, layout.tensor, layout.tensor * layout.data, layout.expert)
        held_in = self.storage(run)
        beside = rope_bytes(run.model, held_in.element)
        beside += absorbed_bytes(run.model, layout.tensor) // layout.pipeline
        spent = peak(run)
        stages = stage_bytes(run.model, split, held_in, layout.pipeline)
        last = len(stages) - 1
        beside += adapters_bytes(run) + deepstack_bytes(run) + round(latents(run).reserved)
        beside -= round(float(run.deployment.option("cpu-offload-gb") or 0) * GIB)
        factor = run.row("loading")["factor"]
        return [
            (max(0, round(size * factor) + beside), spent.last if index == last else spent.first)
            for index, size in enumerate(stages)
        ]

    def storage(self, run: Run) -> Storage:
        """In what the weights are held; some kernels pad their experts."""
        held_in = storage(run.model, run.deployment.quantization, run.deployment.dtype)
        method = held_in.format.method if held_in.format else ""
        row = self.facts.row("expert_padding", run.deployment.engine_version, run.machine.card)
        pad = row["pad"].get(method)
        return held_in._replace(pad=tuple(pad)) if pad else held_in

    def withheld(self, run: Run) -> float:
        """Bytes of the budget that no line of the log explains."""
        return 0.0

    def utilization(self, run: Run) -> float:
        """The share of the card that vLLM may use."""
        asked = run.deployment.utilization
        return run.row("utilization")["value"] if asked is None else asked

    def pool(self, run: Run) -> Pool:
        """The KV pool of the stage with the most layers."""
        deployment, plan = run.deployment, self.page_plan(run)
        key = ("pool", plan, deployment.kv_dtype, deployment.dtype, deployment.layout, run.batch.v1)
        return remembered(run.model, key, lambda: self._pool(run, plan))

    @staticmethod
    def _pool(run: Run, plan: PagePlan) -> Pool:
        caches = cached_layers(run.model, run.deployment)
        if run.model.encoder and run.batch.v1:
            length = largest(run.model).tokens
            caches += tuple(one and one._replace(kind="cross", window=length) for one in caches)
        stages = run.deployment.layout.pipeline
        if stages > 1:
            caches = caches[: max(partition(len(caches), stages))]
        return pool(caches, plan)

    def page_plan(self, run: Run) -> PagePlan:
        """The choices of this version that shape the pool."""
        row = run.row("pages")
        deployment = run.deployment
        grouped = (
            bool(row.get("grouped", True)) and deployment.option("disable-hybrid-kv-cache-manager") != "true"
        )
        return PagePlan(
            block=int(memory_run.block(run).value), align=self.block, grouped=grouped,
            states=int(row.get("states", 1)), near=row.get("near", 1.5),
            tokens_from_concurrency=bool(row.get("tokens_from_concurrency")),
            context_parallel=max(1, int(float(deployment.option("decode-context-parallel-size") or 1))),
        )  # fmt: skip

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that `deployment` could be started with on this machine; 0: none."""
        low, high = 0, model.max_context or deployment.context
        while low < high:
            middle = (low + high + 1) // 2
            found = self.account(model, machine, replace(deployment, context=middle))
            low, high = (middle, high) if found.outcome == "runs" else (low, middle - 1)
        return low


def bars(run: Run, weights: int, available: int, shape: Pool, context: int) -> Bars:
    """How far real starts of this class lie from the figures."""
    row = run.row("error_towers" if run.model.towers else "error")
    low, high = (round(width * GIB) for width in row["kv_gib"])
    above = max(0, available + high) - max(0, available)
    blocks = max(1, shape.blocks(max(available, high)))
    tokens = shape.tokens(blocks, context, run.batch.tokens)
    around = (round(weights * row["weights"][0]), round(weights * row["weights"][1]))
    return Bars(around, (low, above), blocks * shape.block_bytes / tokens if tokens else 0.0)


def settled(model: ModelSpec, deployment: Deployment) -> Deployment:
    """The deployment with `auto` made definite."""
    stored = model.quantization.kv_dtype if model.quantization else ""
    if stored and deployment.kv_dtype == "auto" and within(deployment.engine_version, STORED_KV_SINCE, None):
        deployment = replace(deployment, kv_dtype=stored)
    if deployment.dtype not in ("auto", ""):
        return deployment
    return replace(deployment, dtype="bfloat16" if model.dtype == "bfloat16" else "float16")


def cached_layers(model: ModelSpec, deployment: Deployment) -> tuple[LayerCache | None, ...]:
    """Every layer's cache on one rank, with vLLM's own layouts for sparse MLA; encoders keep none."""
    if model.encoder_only:
        return ()
    element = element_bytes(deployment.kv_dtype, deployment.dtype)
    caches = layer_caches(model, deployment.layout.tensor, element)
    if not any(c is not None and c.index_bytes for c in caches):
        return caches
    latent = DS_MLA_TOKEN if deployment.kv_dtype in ("fp8_ds_mla", "fp8", "fp8_e4m3") else None
    return tuple(_sparse(cache, latent) for cache in caches)


def _sparse(cache: LayerCache | None, latent: int | None) -> LayerCache | None:
    if cache is None or not cache.index_bytes:
        return cache
    return cache._replace(token_bytes=latent or cache.token_bytes, index_bytes=INDEX_TOKEN)


def judged(footprint: Footprint, deployment: Deployment, available: int, shape: Pool,
           need: int) -> Footprint:  # fmt: skip
    """The division with what memory says of it."""
    gib = f"{footprint.weights / GIB:.2f} GiB of weights"
    if footprint.weights > footprint.total:
        return footprint.fails("out_of_memory", f"{gib} exceed the card's {footprint.total / GIB:.2f} GiB")
    held = footprint.weights + footprint.activation + footprint.non_torch
    if held > footprint.total:
        return footprint.fails(
            "out_of_memory",
            f"{gib} and {footprint.activation / GIB:.2f} GiB of start-up peak exceed the card",
        )
    if held + footprint.kv_cache > footprint.total:
        asked = f"{footprint.kv_cache / GIB:.2f} GiB of KV cache as the command says"
        return footprint.fails("out_of_memory", f"{asked} exceed the card beside {gib} and the start-up peak")
    if not shape.groups:
        return (
            footprint if available >= 0 else footprint.fails("refused", "no memory is left after the weights")
        )
    blocks = shape.blocks(available)
    if blocks <= 0:
        return footprint.fails(
            "refused", f"{gib} and the start-up peak leave no memory for the KV cache within "
            f"{footprint.usable / GIB:.2f} GiB")  # fmt: skip
    if blocks < need:
        wanted = f"{need * shape.block_bytes / GIB:.2f} GiB of KV cache"
        return footprint.fails(
            "refused",
            f"a request of {deployment.context:,} tokens needs {wanted}; {available / GIB:.2f} GiB are left",
        )
    return footprint


accountant = VllmAccountant(Facts(__file__))


VENDORS_OWN = "nvcr.io/nvidia"


def assumptions(run: Run, utilization: float, pool: Pool) -> tuple[Assumption, ...]:
    """In the order of the contract."""
    found: tuple[Assumption, ...] = (
        *_batch(run), _block(run, pool), _utilization(run, utilization), _chunked(run),
    )  # fmt: skip
    ways = {
        "graphs_in_budget": memory_run.graphs(run), "sampler": memory_run.sampler(run),
        "engine": memory_run.engine(run), "model_runner": memory_run.runner(run),
    }  # fmt: skip
    found += tuple(Assumption(name, way.value, way.source) for name, way in ways.items())
    if VENDORS_OWN not in run.deployment.image:
        return found
    doubt = "; NVIDIA's own container is not the release of that number: a guess"
    return tuple(one._replace(source=one.source + doubt) for one in found)


def _batch(run: Run) -> tuple[Assumption, Assumption]:
    row, deployment, found = run.row("batch"), run.deployment, run.batch
    offline = f"; the LLM class takes {row['offline']:,} tokens" if row["offline"] else ""
    tokens = row["source"] + offline if found.tokens == row["tokens"] else f"{row['source']}, {_bounded(run)}"
    sequences = row["source"] if found.sequences == row["sequences"] else f"{row['source']}, {_bounded(run)}"
    if deployment.max_batched_tokens:
        tokens = "--max-num-batched-tokens of the command"
    if deployment.max_sequences:
        sequences = "--max-num-seqs of the command"
    return (
        Assumption("max_num_batched_tokens", found.tokens, tokens),
        Assumption("max_num_seqs", found.sequences, sequences),
    )


def _bounded(run: Run) -> str:
    return f"bounded by context, tokens and sequences: {run.row('bounds')['source']}"


def _block(run: Run, pool: Pool) -> Assumption:
    way = memory_run.block(run)
    size = min((group.block for group in pool.groups), default=int(way.value))
    raised = "" if size == way.value else "; raised until a page holds a recurrent state"
    return Assumption("block_size", size, way.source + raised)


def _utilization(run: Run, share: float) -> Assumption:
    said = run.deployment.utilization is not None
    source = "--gpu-memory-utilization of the command" if said else run.row("utilization")["source"]
    return Assumption("gpu_memory_utilization", share, source)


def _chunked(run: Run) -> Assumption:
    said = run.deployment.option("enable-chunked-prefill")
    source = f"--enable-chunked-prefill {said} of the command; " if said else ""
    return Assumption("chunked_prefill", run.batch.chunked, source + run.row("bounds")["source"])
