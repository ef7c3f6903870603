"""Bytes of weights on each rank: each weight split as the engine splits it, in the format it is stored in."""

import re
from collections.abc import Callable, Iterable
from math import prod
from typing import NamedTuple, TypeAlias

from memserve.memory.formats import DTYPE_BYTES, Format, held, of_checkpoint
from memserve.model.spec import Block, ModelSpec, Weight, remembered
from memserve.pattern import Budget, matcher

VOCABULARY_STEP = 64
"""Engines pad the vocabulary to a multiple of 64 before they split it."""
LARGE, SEGMENT, REST = 10 << 20, 2 << 20, 1 << 20
"""c10/cuda/CUDACachingAllocator.cpp: kMinLargeAlloc, kRoundLarge, kSmallSize."""
_FUSED = {
    "q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "query": "qkv", "key": "qkv", "value": "qkv",
    "gate_proj": "gate_up", "up_proj": "gate_up", "w1": "gate_up", "w3": "gate_up",
    "in_proj_qkv": "in_proj_qkvz", "in_proj_z": "in_proj_qkvz", "in_proj_a": "in_proj_ba",
    "in_proj_b": "in_proj_ba",
}  # fmt: skip
INWARD = frozenset({"down_proj", "w2", "fc2", "output_linear"})
"""Names of the projections whose inputs are the FFN's inner width."""
KEPT_BY = {"modelslim": ("mlp.down_proj",)}
"""Modules that a tool's recipe keeps in 16 bit though a short config does not say so: ModelSlim's W8A8 of
dense models (Qwen3-32B-W8A8 takes 10.41 GiB on each of 4 cards, 5.27 on each of 8)."""


class Split(NamedTuple):
    """Over how many ranks each kind of weight is spread."""

    tensor: int = 1
    attention: int = 1
    """Ranks that share attention: less than `tensor` under DP attention."""
    experts: int = 1
    """Ranks over which the experts are spread, whole or sliced."""
    whole_experts: bool = False


class Storage(NamedTuple):
    """In what the weights are held: 16-bit (or float32) elements, and a format for the linear ones."""

    element: int
    format: Format | None
    others: tuple[Format | None, ...] = ()
    """Formats of a mixed checkpoint's further modules, in the order of `Quantization.others`."""
    segments: bool = True
    """torch's CUDA allocator counts whole segments; torch_npu's does not."""
    pad: tuple[int, int] = (1, 1)
    """Experts: the inner and the hidden width are rounded up to these, as some kernels want."""

    def format_at(self, place: int | None) -> Format | None:
        """The format of a weight at a place: None is the main one."""
        if place is None:
            return self.format
        return None if place == LEFT_OUT else self.others[place]


def storage(model: ModelSpec, quantization: str, dtype: str) -> Storage:
    """What the weights are held in once loaded."""
    others = model.quantization.others if model.quantization else ()
    return Storage(DTYPE_BYTES.get(dtype, 2), held(model, quantization), tuple(map(of_checkpoint, others)))


LEFT_OUT = -1
"""In a `Places`: kept in 16 bit; 0 and more: the format of that number among `Storage.others`."""
Places: TypeAlias = "frozenset[tuple[str, int]]"


class Ledger:
    """One model's bytes, summed once per (split, storage) and shared by every candidate that asks."""

    def __init__(self, model: ModelSpec) -> None:
        self.model = model
        stored = model.quantization
        self.ignored = Ignored((*stored.ignored, *KEPT_BY.get(stored.format, ())) if stored else ())
        self.others = [Ignored(other.targets) for other in stored.others] if stored else []
        self.kinds = self._kinds()
        self.sums: dict[tuple[Split, Storage], tuple[tuple[int, ...], int, int, int]] = {}
        self.stages: dict[tuple[Split, Storage, int], tuple[int, ...]] = {}

    def _kinds(self) -> list[tuple[Block, Places]]:
        """Each layer with the weights that stand outside the main format."""
        layered = self.ignored.layered or any(other.layered for other in self.others)
        seen: dict[int, Places] = {}
        kinds = []
        for index, block in enumerate(self.model.blocks):
            if layered or id(block) not in seen:
                seen[id(block)] = self._places(block.weights, index)
            kinds.append((block, seen[id(block)]))
        return kinds

    def _places(self, weights: Iterable[Weight], layer: int | None = None) -> Places:
        found = []
        for weight in weights:
            if self.ignored.holds(weight.name, layer):
                found.append((weight.name, LEFT_OUT))
                continue
            matches = (n for n, other in enumerate(self.others) if other.holds(weight.name, layer))
            place = next(matches, None)
            if place is not None:
                found.append((weight.name, place))
        return frozenset(found)

    def parts(self, split: Split, held_in: Storage) -> tuple[tuple[int, ...], int, int, int]:
        """Bytes per rank of each layer, of the stem, of the top, and of what every stage keeps (towers)."""
        key = (split, held_in)
        if key not in self.sums:
            self.sums[key] = self._parts(split, held_in)
        return self.sums[key]

    def _parts(self, split: Split, held_in: Storage) -> tuple[tuple[int, ...], int, int, int]:
        known: dict[tuple[int, Places], int] = {}
        layers = []
        for block, places in self.kinds:
            key = (id(block), places)
            if key not in known:
                known[key] = self._sum(block.weights, split, held_in, places, block.mixer.kv_heads)
            layers.append(known[key])
        model = self.model
        outside = self._places((*model.stem, *model.top, *model.towers))
        return (
            tuple(layers), self._sum(model.stem, split, held_in, outside) + self._encoder(split, held_in),
            self._sum(model.top, split, held_in, outside), self._sum(model.towers, split, held_in, outside),
        )  # fmt: skip

    def _encoder(self, split: Split, held_in: Storage) -> int:
        """The encoder half of an encoder-decoder model."""
        blocks = self.model.encoder
        return sum(
            self._sum(b.weights, split, held_in, self._places(b.weights), b.mixer.kv_heads) for b in blocks
        )

    @staticmethod
    def _sum(weights: Iterable[Weight], split: Split, held_in: Storage, places: Places,
             kv_heads: int = 0) -> int:  # fmt: skip
        tensors: dict[str, float] = {}
        beside = 0.0
        outside = dict(places)
        for weight in weights:
            if not weight.tied:
                place = outside.get(weight.name)
                body, scales = weight_bytes(weight, split, held_in, place, kv_heads)
                name = fused(weight.name)
                tensors[name] = tensors.get(name, 0.0) + body
                beside += scales
        sizes = tensors.values()
        return round(sum(map(allocated, sizes) if held_in.segments else sizes) + beside)


def weight_bytes(weight: Weight, split: Split, held_in: Storage, place: int | None = None,
                 kv_heads: int = 0) -> tuple[float, float]:  # fmt: skip
    """Bytes of one weight (all its equal tensors) on one rank, and of the scales beside it."""
    form = held_in.format_at(place)
    count, shape = rank_share(weight, split, kv_heads, held_in.pad)
    if form is None or not form.replaces(weight):
        return count * prod(shape) * held_in.element, 0.0
    rows, columns = prod(shape[:-1]), shape[-1]
    return count * rows * columns * form.bits / 8, count * form.beside(rows, columns)


def fused(name: str) -> str:
    """The tensor that engines merge a weight into: q, k and v; gate and up."""
    stem, _, last = name.rpartition(".")
    return f"{stem}.{_FUSED.get(last, last)}"


def allocated(size: float) -> float:
    """Bytes that torch counts for a tensor: segments of whole 2 MiB; rests up to 1 MiB stay with it."""
    if size <= LARGE:
        return size
    segment = -(-size // SEGMENT) * SEGMENT
    return segment if segment - size <= REST else size


def rank_share(weight: Weight, split: Split, kv_heads: int = 0,
               pad: tuple[int, int] = (1, 1)) -> tuple[int, tuple[int, ...]]:  # fmt: skip
    """How many tensors of what shape one rank holds of a weight."""
    count, shape = weight.count, weight.shape
    if weight.shard == "replicated":
        return count, shape
    if weight.shard == "vocab":
        return count, (-(-_padded(shape[0]) // split.attention), *shape[1:])
    if weight.shard == "expert":
        return _expert_share(weight, split, pad)
    ranks = split.attention if weight.part in ("attention", "mixer") else split.tensor
    if weight.shard == "kv":
        ranks = min(ranks, kv_heads or ranks)
    if weight.shard == "row" and len(shape) > 1:
        return count, (*shape[:-1], -(-shape[-1] // ranks))
    return count, (-(-shape[0] // ranks), *shape[1:])


def _expert_share(weight: Weight, split: Split, pad: tuple[int, int]) -> tuple[int, tuple[int, ...]]:
    """Whole experts, or a slice of the inner width of each."""
    count, shape = weight.count, weight.shape
    if split.whole_experts:
        count = -(-count // split.experts)
    if len(shape) < 2:
        return count, shape
    rows, columns = shape[-2:]
    ranks = 1 if split.whole_experts else split.experts
    if weight.name.rpartition(".")[2] in INWARD:
        share = (_up(rows, pad[1]), _up(-(-columns // ranks), pad[0]))
    else:
        share = (_up(-(-rows // ranks), pad[0]), _up(columns, pad[1]))
    return count, (*shape[:-2], *share)


def _up(width: int, step: int) -> int:
    return -(-width // step) * step


def _padded(rows: int) -> int:
    return _up(rows, VOCABULARY_STEP)


def ledger(model: ModelSpec) -> Ledger:
    """The sums of this very object, made on first use."""
    return remembered(model, "ledger", lambda: Ledger(model))


def partition(layers: int, stages: int) -> tuple[int, ...]:
    """Layers per pipeline stage as engines deal them: the remainder to the last stages but one."""
    sizes = [layers // stages] * stages
    for back in range(2, layers % stages + 2):
        sizes[-back] += 1
    return tuple(sizes)


def stage_bytes(model: ModelSpec, split: Split, held_in: Storage, stages: int = 1) -> tuple[int, ...]:
    """Weights of one rank of each pipeline stage."""
    known = ledger(model).stages
    key = (split, held_in, stages)
    if key not in known:
        known[key] = _stage_bytes(model, split, held_in, stages)
    return known[key]


def _stage_bytes(model: ModelSpec, split: Split, held_in: Storage, stages: int) -> tuple[int, ...]:
    layers, stem, top, towers = ledger(model).parts(split, held_in)
    result = []
    start = 0
    for stage, size in enumerate(partition(len(layers), stages)):
        own = sum(layers[start : start + size])
        own += stem + towers if stage == 0 else 0
        if stage == stages - 1:
            own += top + (stem if model.tied_embeddings and stages > 1 else 0)
        result.append(own)
        start += size
    return tuple(result)


def rope_bytes(model: ModelSpec, element: int = 2) -> int:
    """The cos/sin table that some engines count among the weights of every card: positions x rotary width."""
    return model.rope_rows * model.rope_dim * element


def absorbed_bytes(model: ModelSpec, ranks: int) -> int:
    """MLA: the 16-bit copies of kv_b_proj that engines keep to attend in the latent space."""
    return remembered(model, ("absorbed", ranks), lambda: _absorbed_bytes(model, ranks))


def _absorbed_bytes(model: ModelSpec, ranks: int) -> int:
    total = 0
    for block in model.blocks:
        mixer = block.mixer
        if mixer.kind == "mla":
            width = max(mixer.head_dim - mixer.rope_dim, 0) + mixer.value_dim
            total += mixer.kv_lora_rank * -(-mixer.heads // ranks) * width * 2
    return total


_PREFIX = re.compile(r"^(?:model\.|language_model\.|text_model\.|transformer\.)+")
MOST_EXPRESSIONS = 256
_LAYER = re.compile(r"^(?:layers|h|blocks)\.(\d+|\*)\.?")


class Ignored:
    """A config's list of ignored modules, as a question that can be asked of each layer's weights."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.everywhere: list[Callable[[str], bool]] = []
        self.by_layer: dict[int, list[str]] = {}
        self.regular: list[Callable[[str], bool]] = []
        self.budget = Budget()
        for pattern in patterns:
            self._add(pattern)

    def _add(self, pattern: str) -> None:
        if pattern.startswith("re:"):
            matches = matcher(pattern[3:], self.budget) if len(self.regular) < MOST_EXPRESSIONS else None
            if matches is not None:
                self.regular.append(matches)
            return
        bare = _PREFIX.sub("", pattern)
        layer = _LAYER.match(bare)
        if layer is not None and layer[1] != "*":
            self.by_layer.setdefault(int(layer[1]), []).append(bare[layer.end() :])
        else:
            self.everywhere.append(_matcher(bare[layer.end() :] if layer else bare))

    @property
    def layered(self) -> bool:
        """Whether layers may differ from one another."""
        return bool(self.by_layer) or bool(self.regular)

    def holds(self, name: str, layer: int | None = None) -> bool:
        """Whether the weight `name` (inside `layer`, if it is in one) is left out."""
        if any(match(name) for match in self.everywhere):
            return True
        if layer is not None and any(within(part, name) for part in self.by_layer.get(layer, ())):
            return True
        full = name if layer is None else f"model.layers.{layer}.{name}"
        return any(matches(full) for matches in self.regular)


def within(part: str, name: str) -> bool:
    """Whether the module path `part` is a run of whole components of `name` (an empty one is all of it)."""
    if "*" in part:
        from fnmatch import fnmatchcase

        return fnmatchcase(name, part) or fnmatchcase(name, f"{part}.*")
    return not part or f".{part}." in f".{name}."


def _matcher(part: str) -> Callable[[str], bool]:
    return lambda name: within(part, name)
