"""llama.cpp: the GGUF file, one KV cache of the whole context, and a compute buffer."""

from dataclasses import replace
from functools import cache
from typing import Any

from memserve import files
from memserve.engines.command import integer
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Assumption, Footprint
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB, Machine
from memserve.memory.kv import LayerCache, largest_context, layer_caches, sequence_bytes
from memserve.memory.weights import Split, Storage, ledger, partition, storage, weight_bytes
from memserve.model.spec import ModelSpec, parted
from memserve.pattern import Budget, matcher

ERROR = 0.05
"""The mixtures (q4_k_m) differ by a few percent between models: an estimate."""


@cache
def facts() -> dict[str, Any]:
    """The rows of memory.json."""
    read: dict[str, Any] = files.table(__file__, "memory.json")
    return read


class LlamacppAccountant:
    """Layers on the cards, split over them, and the first of them on the host where that is asked for."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide the fullest card."""
        on_cpu, deployment = machine.card.vendor == "cpu", set_aside(deployment)
        weights, sequence, step = self._fullest(model, deployment, on_cpu)
        fixed = int(facts()["backend_gib"]["cpu" if on_cpu else "gpu"] * GIB)
        compute = self._compute(model, deployment)
        total = machine.card.memory
        usable = int(total * (deployment.utilization or 1.0))
        left = usable - weights - fixed - compute
        wanted = deployment.concurrency * sequence
        held = left / sequence if sequence else float(deployment.concurrency)
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=compute, non_torch=fixed, graphs=0,
            kv_cache=max(0, min(left, wanted)), kv_tokens=deployment.concurrency * step if sequence else 0,
            max_concurrency=max(0.0, min(held, deployment.concurrency)), error=ERROR,
        )  # fmt: skip
        if host_layers(model, deployment)[0]:
            taken, there = self.host(model, deployment), host_memory(machine)
            if taken > there:
                spec = f"{machine.cards_per_node}x{machine.card.name}+{-(-taken // GIB)}GB"
                unsaid = (
                    "" if machine.host_memory else f" that are assumed: say --gpus {spec} where there are"
                )
                ram = f"{there / GIB:.2f} GiB of RAM{unsaid}"
                reason = f"{taken / GIB:.2f} GiB stay with the processor, of {ram}"
                return footprint.fails("out_of_memory", reason)
        return _judged(footprint, deployment, left, wanted)

    def assumptions(self, model: ModelSpec, machine: Machine,
                    deployment: Deployment) -> tuple[Assumption, ...]:  # fmt: skip
        """The host's memory, where layers stay there and nobody said how much it has."""
        if not host_layers(model, deployment)[0]:
            return ()
        taken = self.host(model, set_aside(deployment))
        found = [Assumption("host_memory_gib", round(taken / GIB, 1), "what must be free of the host's RAM")]
        if machine.host_memory is None:
            found.append(
                Assumption("host_ram_gib", host_memory(machine) // GIB, facts()["host_gib"]["source"])
            )
        return tuple(found)

    def host(self, model: ModelSpec, deployment: Deployment) -> int:
        """Bytes that stay with the processor: first layers or their experts, the token table, the head."""
        away, whole = host_layers(model, deployment)
        held = parted(model, away, whole=whole)[1]
        layers, stem, top, towers = self._parts(held, deployment)
        caches = [cache for cache in self._caches(held, deployment) if cache is not None]
        cache = sequence_bytes(tuple(caches), self._tokens(deployment))
        return sum(layers) + stem + top + towers + deployment.concurrency * cache

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that every wanted request can reach."""
        return largest_context(self, model, machine, deployment)

    def _storage(self, model: ModelSpec, deployment: Deployment) -> Storage:
        found = storage(model, deployment.quantization, deployment.dtype)._replace(segments=False)
        rest = facts()["rest_bytes"].get(deployment.quantization)
        return found._replace(element=rest) if rest else found

    def _parts(self, model: ModelSpec, deployment: Deployment) -> tuple[tuple[int, ...], int, int, int]:
        """Bytes of each layer, of what comes before and after, and of the projector, which keeps 16 bits."""
        layers, stem, top, _ = ledger(model).parts(Split(), self._storage(model, deployment))
        eyes = ledger(model).parts(Split(), Storage(2, None))[3] if sees(deployment) else 0
        return layers, stem, top, eyes

    def _tokens(self, deployment: Deployment) -> int:
        """Tokens that are set aside for a sequence."""
        step: int = facts()["context_step"]["value"]
        return -(-deployment.context // step) * step

    def _caches(self, model: ModelSpec, deployment: Deployment) -> tuple[LayerCache | None, ...]:
        return layer_caches(model, 1, element(deployment))

    def _fullest(self, model: ModelSpec, deployment: Deployment, on_cpu: bool) -> tuple[int, int, int]:
        """Weights and one sequence's cache of the fullest card, and the tokens that are set aside."""
        away, whole = host_layers(model, deployment)
        kept = model if on_cpu else parted(model, away, whole=whole)[0]
        held_in, (layers, stem, top, towers) = self._storage(model, deployment), self._parts(kept, deployment)
        if not on_cpu and not model.tied_embeddings:
            stem -= round(sum(sum(weight_bytes(w, Split(), held_in)) for w in kept.stem))
        tokens, stages = self._tokens(deployment), deployment.layout.pipeline
        caches = self._caches(kept, deployment)
        found, start = [], 0
        for stage, size in enumerate(partition(len(layers), stages)):
            last = stage == stages - 1
            own = sum(layers[start : start + size]) + (stem + towers) * (not stage)
            own += (top + stem * (model.tied_embeddings and stages > 1)) * last
            held = tuple(cache for cache in caches[start : start + size] if cache is not None)
            found.append((own, 0 if model.encoder_only else sequence_bytes(held, tokens)))
            start += size
        most = max(found, key=lambda pair: pair[0] + deployment.concurrency * pair[1])
        return *most, tokens

    def _compute(self, model: ModelSpec, deployment: Deployment) -> int:
        """The graph's buffer: logits or the widest layer of a micro-batch, and the attention mask."""
        rows = facts()
        batch: int = min(rows["micro_batch"]["value"], deployment.context)
        widest = max(model.vocabulary, 3 * model.intermediate + 2 * model.hidden)
        mask: int = rows["mask_bytes"]["value"] * deployment.context * deployment.concurrency * batch
        return 4 * batch * widest + mask


def set_aside(deployment: Deployment) -> Deployment:
    """The deployment with the sequences that a command sets aside; a plan's are those that are wanted."""
    if not deployment.option("n-ctx"):
        return deployment
    return replace(deployment, concurrency=integer(deployment.option("parallel") or "1", "--parallel"))


def element(deployment: Deployment) -> float:
    """Bytes of a cached element: a command says of keys and of values what holds them."""
    held: dict[str, float] = {name: size for name, size in facts()["kv_bytes"].items() if name != "source"}
    words = [deployment.option(f"cache-type-{half}") for half in "kv"]
    for word in filter(None, words):
        if word.lower() not in held:
            known = ", ".join(name for name in held if "_" in name)
            raise InvalidInput(f"llama.cpp has no cache of {word[:20]!r}", hint=f"f16, {known}")
    return sum(held.get((word or deployment.kv_dtype).lower(), 2) for word in words) / len(words)


def experts_away(said: str, layers: int) -> int:
    """Layers whose experts `-ot PATTERN=CPU,...` all leaves with the processor; the first match decides."""
    budget, rows = Budget(), [one.rpartition("=") for one in said.split(",")]
    places = [(matcher(f".*(?:{pattern})", budget), where) for pattern, _, where in rows]

    def away(name: str) -> bool:
        return next((where for found, where in places if found and found(name)), "").startswith("CPU")

    parts = [f"ffn_{part}_exps.weight" for part in ("up", "gate", "down")]
    return sum(all(away(f"blk.{layer}.{part}") for part in parts) for layer in range(layers))


def host_layers(model: ModelSpec, deployment: Deployment) -> tuple[int, bool]:
    """Layers that stay with the processor, and whether all of them does, not their experts alone.

    It is the planner's choice, or what `-ngl N`, `--n-cpu-moe N`, `--cpu-moe`, `-ot ...` of a command leave.
    """
    layers, said = len(model.blocks), deployment.option("n-gpu-layers") or ""
    if said.isdigit() and int(said) <= layers:
        return layers - int(said), True
    if any(block.experts for block in model.blocks):  # a dense model has nothing that these flags move
        experts = deployment.option("n-cpu-moe") or ""
        if deployment.option("cpu-moe") == "true":
            return layers, False
        if experts.isdigit():
            return min(int(experts), layers), False
        if moved := deployment.option("override-tensor"):
            return experts_away(moved, layers), False
    return deployment.host_layers, False


PROJECTOR = {"mmproj", "mmproj-url", "clip-model-path", "hf-model-repo-id"}


def sees(deployment: Deployment) -> bool:
    """Whether the projector's file is loaded: a plan names it, `llama-server -hf` looks for one."""
    said = dict(deployment.options)
    return not said or bool(PROJECTOR & said.keys() and "no-mmproj-auto" not in said)


def host_memory(machine: Machine) -> int:
    """The host's memory, or what is assumed of it."""
    row = facts()["host_gib"]
    return machine.host_memory or max(
        int(row["value"] * GIB), row["cards"] * machine.cards * machine.card.memory
    )


def _judged(footprint: Footprint, deployment: Deployment, left: int, wanted: int) -> Footprint:
    if left >= wanted:
        return footprint
    return footprint.fails(
        "out_of_memory",
        f"{footprint.weights / GIB:.2f} GiB of weights and a compute buffer of "
        f"{footprint.activation / GIB:.2f} GiB leave {max(0, left) / GIB:.2f} GiB; "
        f"{deployment.concurrency} x {deployment.context:,} tokens keep {wanted / GIB:.2f} GiB",
    )


accountant = LlamacppAccountant()
