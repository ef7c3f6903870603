"""From the states of the tokens to one vector: pooling, dense heads, normalization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from memserve.errors import ModelUnreadable
from memserve_hf.opening.inspection import read_json

if TYPE_CHECKING:
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
