"""One start to be accounted: its rows of memory.json, its batch, and the way that its release takes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.engines.rules import within
from memserve.hardware.machine import GIB, Card, Machine
from memserve.memory.formats import DTYPE_BYTES
from memserve.model.spec import ModelSpec

KEPT = 4096


class Facts:
    """The memory.json beside a backend's module. vLLM-Ascend keeps its own under the same names."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._found: dict[tuple[str, str, str, int], Mapping[str, Any]] = {}

    @cached_property
    def tables(self) -> dict[str, Any]:
        """The whole file."""
        tables: dict[str, Any] = files.table(self.module, "memory.json")
        return tables

    def row(self, name: str, version: str, card: Card) -> Mapping[str, Any]:
        """The first row of the table `name` that speaks of this version on this card."""
        key = (name, version, card.name, card.memory)
        if key not in self._found:
            if len(self._found) >= KEPT:
                self._found.clear()
            self._found[key] = self._first(name, version, card)
        return self._found[key]

    def _first(self, name: str, version: str, card: Card) -> Mapping[str, Any]:
        for row in self.tables[name]:
            if _speaks(row, version, card):
                found: Mapping[str, Any] = row
                return found
        raise LookupError(f"memory.json of {self.module}: no row of {name!r} covers {version} on {card.name}")


def _speaks(row: Mapping[str, Any], version: str, card: Card) -> bool:
    if not within(version, row.get("since"), row.get("before")):
        return False
    if "cards" in row and not any(f"{card.name}-".startswith(f"{name}-") for name in row["cards"]):
        return False
    if row.get("vendor", card.vendor) != card.vendor:
        return False
    if "below_sm" in row and not (card.sm is not None and card.sm < row["below_sm"]):
        return False
    if "at_least_sm" in row and not (card.sm is not None and card.sm >= row["at_least_sm"]):
        return False
    return bool(card.memory >= row.get("at_least_gib", 0) * GIB)


def by_ranks(values: Mapping[str, float], ranks: int) -> float:
    """The value of the largest listed number of ranks that is not above `ranks`."""
    listed = [int(key) for key in values if int(key) <= ranks]
    return values[str(max(listed))] if listed else next(iter(values.values()))


class Batch(NamedTuple):
    """What one profiling run holds."""

    sequences: int
    tokens: int
    v1: bool
    chunked: bool


@dataclass(frozen=True)
class Run:
    """A model's deployment on a machine, beside the tables that speak of it."""

    facts: Facts
    model: ModelSpec
    machine: Machine
    deployment: Deployment

    def row(self, name: str) -> Mapping[str, Any]:
        """The row of a table for this version and card."""
        return self.facts.row(name, self.deployment.engine_version, self.machine.card)

    @cached_property
    def batch(self) -> Batch:
        """Sequences and tokens of the profiling run."""

        return batch(self)

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return DTYPE_BYTES.get(self.deployment.dtype, 2)


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
    """One trait by which a release leaves its usual way; the empty one always holds."""
    deployment, model = run.deployment, run.model
    if not trait:
        return True
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


def any_of(run: Run, traits: Iterable[str]) -> bool:
    """Whether one of them holds."""
    return any(has(run, trait) for trait in traits)


def engine(run: Run) -> Choice:
    """V0 or V1."""
    row, said = run.row("engine"), run.deployment.variable("VLLM_USE_V1")
    if said in ("0", "1") and within(run.deployment.engine_version, None, LAST_V0):
        return Choice(f"V{said}", f"VLLM_USE_V1={said} before the command")
    old, option = run.row("v0_only"), run.deployment.option
    span = old["spans"].get(run.model.architecture)
    drafts, kernels = option("speculative-config"), run.deployment.variable("VLLM_ATTENTION_BACKEND")
    fallback = any_of(run, (*row.get("not", ()), *old["flags"]))
    fallback |= bool(drafts) and not any(name in (drafts or "") for name in row.get("drafts", ("",)))
    fallback |= kernels in row.get("attention", ())
    if span and within(run.deployment.engine_version, *span):
        return Choice("V0", old["source"])
    return Choice("V0" if fallback else f"V{row['value']}", row["source"])


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


V0_LEAST = 2048
V0_SEQUENCES = 256
V0_POOLING = 32768
V0_MULTIMODAL = 5120
CHUNKED_SINCE = "0.5.3"
V0_CHUNKED_FROM = 32768
THROUGHPUT_SINCE = "0.18.0"


def batch(run: Run) -> Batch:
    """Sequences and tokens of the profiling run."""
    deployment, row, bounds = run.deployment, run.row("batch"), run.row("bounds")
    if engine(run).value == "V0":
        return _v0(run)
    chunked = _chunked(run, obeyed=bounds["unchunked"] == "obeyed")
    doubled = 2 if _throughput(run) else 1
    tokens = deployment.max_batched_tokens or (row["tokens"] or V0_LEAST) * doubled
    sequences = deployment.max_sequences or row["sequences"] * doubled
    if deployment.max_batched_tokens is None:
        if not chunked:
            least = tokens if bounds["unchunked"] == "obeyed" else 0
            tokens = max(least, deployment.context)
        if run.model.towers:
            tokens = max(tokens, bounds.get("items", {}).get(run.model.model_type, 0))
        if bounds["tokens"] == "lowered":
            tokens = min(tokens, sequences * deployment.context)
    if deployment.max_sequences is None and bounds["sequences"] == "lowered":
        sequences = min(sequences, tokens)
    return Batch(sequences, tokens, True, chunked)


def refused(run: Run) -> str:
    """What the scheduler says of more sequences than tokens; empty where it says nothing."""
    found = run.batch
    if run.row("bounds")["sequences"] != "refused" or not found.v1 or found.tokens >= found.sequences:
        return ""
    return (
        f"max_num_batched_tokens ({found.tokens}) must be at least max_num_seqs ({found.sequences})"
        f" up to vLLM 0.10.0: add --max-num-seqs {found.tokens}"
    )


def _throughput(run: Run) -> bool:
    asked = run.deployment.option("performance-mode") == "throughput"
    return asked and within(run.deployment.engine_version, THROUGHPUT_SINCE, None)


def _chunked(run: Run, *, obeyed: bool) -> bool:
    """V1 chunks the prompts of all that writes, and cannot those of encoders."""
    asked = run.deployment.option("enable-chunked-prefill")
    able = not run.model.encoder_only and not run.model.encoder
    if asked is None or (not obeyed and not pools(run)):
        return able
    return asked != "false"


def _v0(run: Run) -> Batch:
    """V0 profiles a whole prompt, unless a context above 32k turned chunked prefill on."""
    deployment, model = run.deployment, run.model
    chunked = deployment.option("enable-chunked-prefill") == "true" or _long(run)
    tokens = deployment.max_batched_tokens
    if tokens is None:
        tokens = run.row("chunk")["value"] if chunked else max(deployment.context, V0_LEAST)
        tokens = max(tokens, V0_POOLING * pools(run), V0_MULTIMODAL * bool(model.towers or model.encoder))
    return Batch(deployment.max_sequences or min(V0_SEQUENCES, tokens), tokens, False, chunked)


def _long(run: Run) -> bool:
    """Whether V0 chunks a long context by itself."""
    deployment, model = run.deployment, run.model
    without = ("enable-chunked-prefill", "enable-lora", "speculative-config")
    if any(map(deployment.option, without)) or deployment.context <= V0_CHUNKED_FROM:
        return False
    kept = {"sliding", "mla"} if within(deployment.engine_version, "0.8.0", None) else {"sliding"}
    whole = kept & {block.mixer.kind for block in model.blocks}
    able = not whole and not model.towers and not pools(run)
    return able and within(deployment.engine_version, CHUNKED_SINCE, None)
