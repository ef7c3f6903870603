"""From texts to vectors, as the checkpoint's own modules say: sorted by length, in bounded batches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from memserve.errors import ModelUnreadable, Unsupported
from memserve_hf.opening.checkpoint import Checkpoint, read_json
from memserve_hf.options import Options

_FLAGS = {
    "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean", "pooling_mode_lasttoken": "last",
}  # fmt: skip
_WORDS = {"lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
_ENCODER_FILES = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlnet_config.json")
_PASSIVE = frozenset({"Dropout"})


@dataclass(frozen=True)
class Recipe:
    """From tokens to a vector: the steps after the transformer, and the prompts of the roles."""

    pooling: tuple[str, ...]
    max_length: int | None = None
    lower: bool = False
    include_prompt: bool = True
    dense: tuple[Path, ...] = ()
    layer_norm: tuple[Path, ...] = ()
    normalize: bool = False
    prompts: tuple[tuple[str, str], ...] = ()

    @property
    def roles(self) -> frozenset[str]:
        """Roles that may be asked for: the two that always exist, and the prompts by name."""
        return frozenset({"query", "document", *dict(self.prompts)})

    def prompt(self, role: str | None) -> str:
        """The words put before a text in this role; a prompt named `passage` is a role of that name."""
        return dict(self.prompts).get(role or "", "")


def recipe(checkpoint: Checkpoint, options: Options) -> Recipe:
    """The recipe of a checkpoint; `pooling=` and `max_length=` overrule its files."""
    folder = checkpoint.folder
    steps = _steps(folder)
    encoder = _first_json([folder / steps.get("Transformer", [""])[0] / name for name in _ENCODER_FILES])
    pooling, include_prompt = _pooling(folder, steps, checkpoint)
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    return Recipe(
        pooling=(options.pooling,) if options.pooling else pooling,
        max_length=options.max_length or encoder.get("max_seq_length"),
        lower=bool(encoder.get("do_lower_case")),
        include_prompt=include_prompt,
        dense=tuple(folder / path for path in steps.get("Dense", ())),
        layer_norm=tuple(folder / path for path in steps.get("LayerNorm", ())),
        normalize="Normalize" in steps,
        prompts=tuple((str(name), str(text)) for name, text in prompts.items()),
    )


def _steps(folder: Path) -> dict[str, list[str]]:
    """Module class -> its folders, in order; empty without modules.json."""
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    import json

    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(str(row["type"]).rpartition(".")[2], str(row["path"])) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelUnreadable(f"{path} is not a list of modules: {error}", path=str(path)) from error
    steps: dict[str, list[str]] = {}
    for kind, where in pairs:
        if kind not in ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", *_PASSIVE):
            raise Unsupported("hf", f"the sentence-transformers module {kind}", f"named in {path}")
        steps.setdefault(kind, []).append(where)
    return steps


def _pooling(folder: Path, steps: Mapping[str, list[str]],
             checkpoint: Checkpoint) -> tuple[tuple[str, ...], bool]:  # fmt: skip
    if "Pooling" not in steps:
        return (("pooler",) if is_dpr(checkpoint.config) else ("mean",)), True
    path = folder / steps["Pooling"][0] / "config.json"
    config = read_json(path, required=True)
    word = config.get("pooling_mode")
    words = (
        [word]
        if isinstance(word, str)
        else list(word or [n for flag, n in _FLAGS.items() if config.get(flag)])
    )
    modes = tuple(_WORDS.get(mode, mode) for mode in words) or ("mean",)
    unknown = set(modes) - set(_FLAGS.values())
    if unknown:
        raise ModelUnreadable(
            f"{path}: unknown pooling {', '.join(unknown)}", path=str(path), field="pooling_mode"
        )
    return modes, bool(config.get("include_prompt", True))


def is_dpr(config: Mapping[str, Any]) -> bool:
    """DPR's encoders: a class of their own for each side, and the pooler's vector."""
    return config.get("model_type") == "dpr"


def classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The transformers classes to try for an encoder."""
    if is_dpr(config):
        return (next(iter(config.get("architectures") or ()), "DPRQuestionEncoder"),)
    return ("T5EncoderModel",) if config.get("model_type") in ("t5", "mt5") else ("AutoModel",)


def _first_json(paths: list[Path]) -> dict[str, Any]:
    return next((read_json(path) for path in paths if path.is_file()), {})


if TYPE_CHECKING:
    from torch import Tensor

    Forward = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor | None]]
    """Model inputs to (token states, pooler output)."""
    from torch import Tensor


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x, "Tanh": torch.tanh, "ReLU": torch.relu, "GELU": torch.nn.functional.gelu,
    "Sigmoid": torch.sigmoid, "SiLU": torch.nn.functional.silu,
}  # fmt: skip


def pool(modes: Sequence[str], states: Tensor, mask: Tensor, pooler: Tensor | None) -> Tensor:
    """One float32 vector a row, the modes side by side; `mask` [rows, tokens] is 1 where a token counts."""
    states = states.float()
    weights = mask.to(states.dtype)[:, :, None]
    return torch.cat([_one(mode, states, weights, pooler) for mode in modes], dim=-1)


def _one(mode: str, states: Tensor, weights: Tensor, pooler: Tensor | None) -> Tensor:
    if mode == "pooler":
        assert pooler is not None
        return pooler.float()
    if mode == "cls":
        return _at(states, weights[:, :, 0].argmax(dim=1))
    if mode == "last":
        ends = weights.shape[1] - 1 - weights[:, :, 0].flip(1).argmax(dim=1)
        return _at(states, ends)
    if mode == "max":
        return states.masked_fill(weights == 0, -torch.inf).amax(dim=1)
    if mode == "weightedmean":
        weights = weights * torch.arange(1, states.shape[1] + 1, device=states.device)[None, :, None]
    total, count = (states * weights).sum(dim=1), weights.sum(dim=1).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len" else count)


def _at(states: Tensor, index: Tensor) -> Tensor:
    return states[torch.arange(states.shape[0], device=states.device), index]


class Dense:
    """A linear layer with its activation, or a layer norm, from a sentence-transformers module folder."""

    def __init__(self, folder: Path, device: torch.device, *, allow_pickle: bool) -> None:
        config = read_json(folder / "config.json", required=True)
        name = str(config.get("activation_function", "Identity")).rpartition(".")[2]
        if name not in _ACTIVATIONS:
            path = str(folder / "config.json")
            raise ModelUnreadable(
                f"{path}: unknown activation {name}", path=path, field="activation_function"
            )
        self._activation = _ACTIVATIONS[name]
        weights = _weights(folder, allow_pickle=allow_pickle)
        self._norm = "norm.weight" in weights
        prefix = "norm" if self._norm else "linear"
        self._weight = weights[f"{prefix}.weight"].float().to(device)
        bias = weights.get(f"{prefix}.bias")
        self._bias = None if bias is None else bias.float().to(device)

    def __call__(self, vectors: Tensor) -> Tensor:
        if self._norm:
            return torch.nn.functional.layer_norm(vectors, self._weight.shape, self._weight, self._bias)
        return self._activation(torch.nn.functional.linear(vectors, self._weight, self._bias))


def _weights(folder: Path, *, allow_pickle: bool) -> dict[str, Any]:
    file = folder / "model.safetensors"
    if file.is_file():
        from safetensors.torch import load_file

        return dict(load_file(str(file)))
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file() and allow_pickle:
        return dict(torch.load(pickled, map_location="cpu", weights_only=True))
    raise ModelUnreadable(
        f"{folder} holds no model.safetensors", path=str(folder),
        hint="pickled weights are read only with allow_pickle=True",
    )  # fmt: skip


def normalized(vectors: Tensor) -> Tensor:
    """Rows of length 1; a zero row stays zero."""
    return torch.nn.functional.normalize(vectors, dim=-1)


log = logging.getLogger("memserve.hf")
_HUGE = 1 << 20
_ROWS = 128


@dataclass(frozen=True)
class Tokens:
    """One text as the model sees it."""

    ids: list[int]
    types: list[int] | None
    skipped: int = 0
    """Tokens at the beginning that do not count in pooling."""


class Encoder:
    """One encoder and its recipe."""

    def __init__(self, tokenizer: Any, recipe: Recipe, forward: Forward, *, device: torch.device,
                 longest: int | None, batch_tokens: int, allow_pickle: bool) -> None:  # fmt: skip
        self.tokenizer, self.recipe, self.forward, self.device = tokenizer, recipe, forward, device
        self.longest = _longest(tokenizer, recipe, longest)
        self.batch_tokens = batch_tokens
        self.heads = [
            Dense(folder, device, allow_pickle=allow_pickle) for folder in (*recipe.dense, *recipe.layer_norm)
        ]

    def encode(self, texts: Sequence[str], role: str | None) -> tuple[Tensor, int]:
        """Vectors [n, d] before normalization, and the tokens that were read."""
        prompt = self.recipe.prompt(role)
        tokens = self.tokenize([prompt + text for text in texts], prompt)
        vectors: list[Tensor] = []
        order: list[int] = []
        for batch in batches([len(t.ids) for t in tokens], self.batch_tokens):
            vectors.append(self._pooled([tokens[i] for i in batch]))
            order += batch
        places = torch.empty(len(order), dtype=torch.long)
        places[order] = torch.arange(len(order))
        return torch.cat(vectors)[places], sum(len(t.ids) for t in tokens)

    def tokenize(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Token ids with the tokenizer's own special tokens, cut at the longest input."""
        if self.recipe.lower:
            texts = [text.lower() for text in texts]
        skipped = 0 if self.recipe.include_prompt or not prompt else self._prompt_length(prompt)
        made = self.tokenizer(list(texts), padding=False, verbose=False)
        if cut := sum(len(ids) > self.longest for ids in made["input_ids"]):
            log.warning(
                "%d of %d texts are longer than %d tokens: the rest is not read",
                cut,
                len(texts),
                self.longest,
            )
            made = self.tokenizer(list(texts), truncation=True, max_length=self.longest, padding=False)
        types = made.get("token_type_ids")
        return [Tokens(ids, types[i] if types else None, skipped) for i, ids in enumerate(made["input_ids"])]

    def _prompt_length(self, prompt: str) -> int:
        ids = self.tokenizer([prompt])["input_ids"][0]
        closing = (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id)
        return len(ids) - (1 if ids and ids[-1] in closing else 0)

    def _pooled(self, batch: Sequence[Tokens]) -> Tensor:
        inputs = pad(batch, self.tokenizer.pad_token_id or 0, self.device)
        states, pooler = self.forward(inputs)
        mask = inputs["attention_mask"]
        if batch[0].skipped:
            mask = mask.clone()
            mask[:, : batch[0].skipped] = 0
        vectors = pool(self.recipe.pooling, states, mask, pooler)
        for head in self.heads:
            vectors = head(vectors)
        return vectors.cpu()


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length, the longest first; each padded to at most `budget` tokens."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    start = 0
    while start < len(order):
        rows = max(1, min(_ROWS, budget // max(1, lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def pad(batch: Sequence[Tokens], filler: int, device: torch.device) -> dict[str, Tensor]:
    """Model inputs, padded on the right."""
    longest = max(len(row.ids) for row in batch)
    gaps = [longest - len(row.ids) for row in batch]
    columns = {
        "input_ids": [row.ids + [filler] * gap for row, gap in zip(batch, gaps, strict=True)],
        "attention_mask": [[1] * len(row.ids) + [0] * gap for row, gap in zip(batch, gaps, strict=True)],
    }
    if batch[0].types is not None:
        columns["token_type_ids"] = [
            (row.types or []) + [0] * gap for row, gap in zip(batch, gaps, strict=True)
        ]
    return {name: torch.tensor(rows, device=device) for name, rows in columns.items()}


def torch_forward(model: Any) -> Forward:
    """The plain way: the model itself."""

    def forward(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        out: Any = model(**inputs, return_dict=True)
        pooler: Tensor | None = getattr(out, "pooler_output", None)
        states: Tensor | None = getattr(out, "last_hidden_state", None)
        if states is None:
            assert pooler is not None
            states = pooler[:, None]
        return states, pooler

    return forward


def _longest(tokenizer: Any, recipe: Recipe, positions: int | None) -> int:
    own = getattr(tokenizer, "model_max_length", None) or _HUGE
    limits = [recipe.max_length or min(own, positions or _HUGE), positions or _HUGE]
    found = min(int(min(limit, sys.maxsize)) for limit in limits)
    return min(found, _HUGE)
