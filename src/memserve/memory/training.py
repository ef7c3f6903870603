"""Memory of training: weights, gradients, optimizer and activations of one card."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

from memserve import files
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB, Card, Machine
from memserve.memory.formats import named
from memserve.memory.weights import Split, Storage, weight_bytes
from memserve.model.spec import Block, ModelSpec, Weight, remembered

ADAPTER = 4
"""Bytes of an element on the adapter's path: peft casts its input to float32."""


@dataclass(frozen=True)
class Keeping:
    """What is trained: it decides which inputs autograd must keep."""

    element: int
    """Bytes of an activation: 2, or 4 in float32."""
    adapted: Callable[[Weight], bool] | None = None
    """The linear layers that have an adapter; None: the weights themselves are trained."""
    rank: int = 0


def layer_bytes(model: ModelSpec, block: Block, keeping: Keeping) -> float:
    """Bytes that one token leaves in one layer."""
    linear = [weight for weight in block.weights if weight.linear]
    kept = sum(_times(block, w) * _linear_bytes(model, linear, w, keeping) for w in linear)
    return kept + _norm_bytes(model, block, keeping) + _routing_bytes(model, block, keeping)


def _linear_bytes(model: ModelSpec, layer: Iterable[Weight], weight: Weight, keeping: Keeping) -> float:
    rows, columns = weight.shape[0], weight.shape[-1]
    if not _closes(model, weight):
        kept = rows * keeping.element
    else:
        copies = 1 if weight.part in ("attention", "mixer") else _inner_copies(model, layer, weight, keeping)
        kept = columns * keeping.element * copies
    if keeping.adapted is not None and keeping.adapted(weight):
        kept += (columns + keeping.rank) * ADAPTER
    return kept


def _inner_copies(model: ModelSpec, layer: Iterable[Weight], weight: Weight, keeping: Keeping) -> int:
    """A gated MLP keeps the activated gate; the product is kept only to train the last matrix."""
    opening = [w for w in layer if w.part == weight.part and not _closes(model, w)]
    return int(len(opening) > 1) + int(keeping.adapted is None)


def _closes(model: ModelSpec, weight: Weight) -> bool:
    """Whether the matrix leads back to the hidden size: o_proj, down_proj."""
    if weight.shard == "row":
        return True
    return weight.part == "expert" and weight.shape[0] == model.hidden != weight.shape[-1]


def _times(block: Block, weight: Weight) -> float:
    """How often one token passes: experts count as many times as a token visits."""
    return block.experts_per_token if weight.part == "expert" else weight.count


def _norm_bytes(model: ModelSpec, block: Block, keeping: Keeping) -> float:
    """RMSNorm works in float32 and keeps its input so; LayerNorm keeps its input as it is."""
    names = {weight.name for weight in block.weights}
    trained = keeping.adapted is None
    kept = 0.0
    for weight in block.weights:
        if weight.part != "norm" or weight.name.endswith(".bias"):
            continue
        width = weight.shape[-1] if weight.shape[-1] == model.hidden else _head_width(block, weight)
        fused = f"{weight.name}.bias" in names
        inner = keeping.element if fused else 4 + trained * keeping.element
        feeds_linear = trained and weight.shape[-1] == model.hidden
        kept += width * (inner + feeds_linear * keeping.element)
    return kept


def _head_width(block: Block, weight: Weight) -> int:
    """A norm over each head's dimensions works on all heads; one over a latent only on that."""
    mixer = block.mixer
    if weight.shape[-1] != mixer.head_dim:
        return weight.shape[-1]
    return mixer.head_dim * (mixer.kv_heads if "k_" in weight.name else mixer.heads)


def _routing_bytes(model: ModelSpec, block: Block, keeping: Keeping) -> float:
    """The token's copy for each expert it visits, and what the expert gave back."""
    return 2 * keeping.element * model.hidden * block.experts_per_token if block.experts else 0.0


METHODS = ("full", "lora", "qlora")
_SHORT = {
    "bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "pure-bf16": "bfloat16",
    "pure-bfloat16": "bfloat16", "bfloat16-mixed": "mixed", "bf16-mixed": "mixed",
}  # fmt: skip
PLAIN = ("float32", "bfloat16")
"""Precisions that torch.optim itself steps in, a whole list of tensors at once."""
MASTERS = "precision=mixed keeps a float32 copy of the weights and float32 moments: {:.1f} GiB more"


@dataclass(frozen=True)
class TrainingNeed:
    """Bytes that training takes on each card."""

    method: str
    precision: str
    optimizer: str
    zero: int
    cards: int
    batch: int
    sequence: int
    checkpointing: bool
    trainable: int
    """Parameters that are trained."""
    weights: int
    gradients: int
    optimizer_states: int
    """With the float32 copy of the weights, where mixed precision keeps one."""
    activations: int
    logits: int
    buffers: int
    """Gathered layers, communication buckets, dequantized weights."""
    workspace: int
    step: int = 0
    """What the optimizer takes beside its states while it steps."""
    shared: int = 0
    """Of gradients and step, what lies where activations had been: a loss finds none of the two."""
    notes: tuple[str, ...] = ()
    refused: str = ""
    """Why no card of this kind trains so, whatever its memory."""

    def held_by(self, memory: int) -> bool:
        """Whether a card of so much memory trains so."""
        return not self.refused and self.total <= memory

    @property
    def states(self) -> int:
        """Weights, gradients and optimizer: what ZeRO shards."""
        return self.weights + self.gradients + self.optimizer_states

    @property
    def total(self) -> int:
        """All of it at the worst moment of a step."""
        kept = self.states + self.activations + self.logits + self.buffers + self.workspace
        return kept + self.step - self.shared


@cache
def facts() -> dict[str, Any]:
    """The rows of data/training.json."""
    return dict(files.table(__file__, "data/training.json"))


def need(model: ModelSpec, *, method: str = "full", optimizer: str = "adamw", precision: str = "bfloat16",
         zero: int = 0, cards: int = 1, batch: int = 1, sequence: int = 2048, checkpointing: bool = False,
         lora_rank: int = 16, lora_targets: tuple[str, ...] | None = None) -> TrainingNeed:  # fmt: skip
    """What one card needs; `batch` is a card's own, `lora_targets` None means every linear layer."""
    precision = _SHORT.get(precision, precision)
    _check(method=method, optimizer=optimizer, precision=precision, zero=zero, cards=cards, batch=batch,
           sequence=sequence, lora_rank=lora_rank)  # fmt: skip
    targets = None if lora_targets == ("all-linear",) else lora_targets
    adapted = None if method == "full" else _Targets(model, targets)
    trainable = model.parameters if adapted is None else adapted.parameters(model, lora_rank)
    element = 4 if precision == "float32" else 2
    weights, gradients, states = _states(model, method, optimizer, precision, trainable, adapted)
    keeping = Keeping(element, adapted, lora_rank if adapted else 0)
    tokens = batch * sequence
    activations, logits = _kept(model, keeping, tokens, checkpointing)
    step = shared = 0.0
    if method == "full" and (cards == 1 or not zero):
        step = facts()["optimizers"][optimizer].get("step", 0) * (states if precision in PLAIN else 0)
        shared = facts()["reused"]["value"] * min(gradients + step, activations + logits)
    return TrainingNeed(
        method=method, precision=precision, optimizer=optimizer, zero=zero, cards=cards, batch=batch,
        sequence=sequence, checkpointing=checkpointing, trainable=trainable,
        weights=round(weights / (cards if zero >= 3 else 1)),
        gradients=round(gradients / (cards if zero >= 2 else 1)),
        optimizer_states=round(states / (cards if zero >= 1 else 1)),
        activations=activations, logits=logits,
        buffers=_buffers(model, method, zero, cards, element, trainable),
        workspace=facts()["workspace_bytes"]["value"], step=round(step), shared=round(shared),
        notes=_notes(model, method, precision, optimizer, adapted),
    )  # fmt: skip


def refusals(card: Card, settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The rows of what is asked for that has no kernels for a card."""
    for row in facts()["kernels"]:
        old = card.sm is not None and card.sm < row["least_sm"]
        asked = settings.get(row["option"]) == row["value"]
        if asked and (card.vendor not in row["vendors"] or old or card.soc in row["socs_without"]):
            yield row


def for_machine(model: ModelSpec, machine: Machine, **settings: Any) -> TrainingNeed:
    """The least sharding that fits on the machine's cards; ZeRO 3 with a note where nothing does."""
    if not model.blocks:
        raise InvalidInput(f"{model.id} is its provider's: name a model whose weights one has")
    told = tuple(row["says"].format(card=machine.card.name) for row in refusals(machine.card, settings))
    found = _sharded(model, machine, **settings)
    return replace(found, refused="; ".join(told), notes=(*told, *found.notes))


def _sharded(model: ModelSpec, machine: Machine, **settings: Any) -> TrainingNeed:
    asked = settings.pop("zero", None)
    if "bfloat16" not in machine.card.flops and "float16" in machine.card.flops:
        settings.setdefault("precision", "float16")
    stages = (0, 1, 2, 3) if asked is None else (asked,)
    tried = [need(model, zero=stages[0], cards=machine.cards, **settings)]
    while tried[-1].total > machine.card.memory and len(tried) < len(stages):
        tried.append(need(model, zero=stages[len(tried)], cards=machine.cards, **settings))
    over = (tried[-1].total - machine.card.memory) / GIB
    if over <= 0:
        return tried[-1]
    note = f"does not fit: {over:.1f} GiB per card too much on {machine.cards}x{machine.card.name}"
    return replace(tried[-1], notes=(*tried[-1].notes, note))


class _Targets:
    """The linear layers that get an adapter: all, or those whose name ends with one of the words."""

    def __init__(self, model: ModelSpec, words: tuple[str, ...] | None) -> None:
        self.words = words
        if not any(self(weight) for weight in model.weights):
            linear = sorted({w.name.rpartition(".")[2] for w in model.weights if w.linear})
            raise InvalidInput(f"no layer of {model.id} matches lora_targets {list(words or ())}",
                               hint=f"known: {', '.join(linear)[:150]}")  # fmt: skip

    def __call__(self, weight: Weight) -> bool:
        if not weight.linear or weight.tied or weight.part in ("head", "router", "tower", "projector"):
            return False
        return self.words is None or weight.name.rpartition(".")[2] in self.words

    def parameters(self, model: ModelSpec, rank: int) -> int:
        """Of both matrices of every adapter."""
        return sum(w.count * rank * (w.shape[0] + w.shape[-1]) for w in model.weights if self(w))


def _check(**asked: Any) -> None:
    rows = facts()
    known: dict[str, tuple[Any, ...]] = {
        "method": METHODS, "optimizer": tuple(rows["optimizers"]), "precision": tuple(rows["precisions"]),
        "zero": (0, 1, 2, 3),
    }  # fmt: skip
    for name, values in known.items():
        if asked[name] not in values:
            raise InvalidInput(f"unknown {name} {asked[name]!r}: one of {', '.join(map(str, values))}")
    for name in ("cards", "batch", "sequence", "lora_rank"):
        if not isinstance(asked[name], int) or not 1 <= asked[name] <= 10**8:
            raise InvalidInput(f"{name} must be a whole number above 0, not {asked[name]!r}")


def _states(model: ModelSpec, method: str, optimizer: str, precision: str, trainable: int,
            adapted: _Targets | None) -> tuple[float, float, float]:  # fmt: skip
    """Bytes of weights, gradients and optimizer before any sharding."""
    row, kind = facts()["precisions"][precision], facts()["optimizers"][optimizer]
    scale = 1.0 if kind.get("own_dtype") else row["state_scale"]
    if adapted is None:
        states = kind["states"] * scale * trainable + (_factored(model) if kind.get("factored") else 0)
        return row["weight"] * trainable, row["gradient"] * trainable, row["master"] * trainable + states
    own = facts()["lora"]["bytes"]
    frozen = Storage(row["weight"], named("nf4") if method == "qlora" else None)
    base = remembered(model, ("frozen", frozen), lambda: _whole(model, frozen))
    return base + own["weight"] * trainable, own["gradient"] * trainable, kind["states"] * trainable


def _whole(model: ModelSpec, held_in: Storage) -> float:
    return sum(sum(weight_bytes(w, Split(), held_in)) for w in model.weights if not w.tied)


def _factored(model: ModelSpec) -> float:
    """Adafactor's second moments in float32: rows and columns of matrices, all of vectors."""
    own = (w for w in model.weights if not w.tied)
    return sum(
        4 * w.count * (w.shape[-1] + prod(w.shape[:-1]) if len(w.shape) > 1 else w.shape[0]) for w in own
    )


def _kept(model: ModelSpec, keeping: Keeping, tokens: int, checkpointing: bool) -> tuple[int, int]:
    """Activations and logits at the worst moment: the loss, or the layer that is computed again."""
    known: dict[int, float] = {}
    for block in (*model.encoder, *model.blocks):
        if id(block) not in known:
            known[id(block)] = layer_bytes(model, block, keeping) * tokens
    layers = [known[id(block)] for block in (*model.encoder, *model.blocks)]
    logits = 0.0 if model.encoder_only else facts()["logits_bytes"]["value"] * tokens * model.vocabulary
    if not checkpointing:
        return round(sum(layers)), round(logits)
    inputs = len(layers) * tokens * model.hidden * keeping.element
    again = max(layers, default=0.0)
    return round(inputs + max(0.0, again - logits)), round(logits)


def _buffers(model: ModelSpec, method: str, zero: int, cards: int, element: int, trainable: int) -> int:
    largest = remembered(model, "largest block", lambda: max(map(_own, model.blocks), default=0))
    gathered = 2 * largest * element if zero == 3 and cards > 1 else 0
    bucket = min(trainable, facts()["bucket_elements"]["value"]) * element if cards > 1 else 0
    rebuilt = 0
    if method == "qlora":
        rebuilt = remembered(model, "largest matrix", lambda: _largest(model)) * element
    return round(gathered + bucket * (2 if zero in (1, 2) else 1) + rebuilt)


def _largest(model: ModelSpec) -> int:
    return max((prod(w.shape) for w in model.weights if w.linear and w.part != "head"), default=0)


def _own(block: Block) -> int:
    return sum(weight.parameters for weight in block.weights)


def _notes(model: ModelSpec, method: str, precision: str, optimizer: str,
           adapted: _Targets | None) -> tuple[str, ...]:  # fmt: skip
    if adapted is None and precision == "bfloat16":
        more = _states(model, method, optimizer, "mixed", model.parameters, None)
        own = _states(model, method, optimizer, precision, model.parameters, None)
        return (MASTERS.format((sum(more) - sum(own)) / GIB),)
    if adapted is None:
        return ()
    where = "every linear layer" if adapted.words is None else ", ".join(adapted.words)
    held = "4-bit NF4 weights" if method == "qlora" else "frozen 16-bit weights"
    return (f"adapters on {where} over {held}",)
