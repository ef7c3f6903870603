"""The module `torch.nn`, put together."""

from __future__ import annotations

from typing import Any

from memserve.model.standin.containers import ModuleDict, ModuleList, Sequential
from memserve.model.standin.modules import (
    GRU,
    LSTM,
    BatchNorm,
    Bilinear,
    Buffer,
    Embedding,
    GroupNorm,
    GRUCell,
    InstanceNorm,
    LayerNorm,
    Linear,
    Module,
    MultiheadAttention,
    Parameter,
    PReLU,
    RMSNorm,
    convolution,
    weight,
)


class _Utils:
    """torch.nn.utils: weight norm splits a weight into direction and length; the rest changes no count."""

    def weight_norm(self, module: Any, name: str = "weight", dim: int | None = 0) -> Any:
        full = getattr(module, name).shape
        length = (
            ()
            if dim is None
            else tuple(size if place == dim % len(full) else 1 for place, size in enumerate(full))
        )
        setattr(module, f"{name}_g", weight(*length))
        return module

    def spectral_norm(self, module: Any, *_args: Any, **_named: Any) -> Any:
        return module

    def remove_weight_norm(self, module: Any, name: str = "weight") -> Any:
        delattr(module, f"{name}_g")
        return module

    @property
    def parametrizations(self) -> _Utils:
        return self


class Nn:
    """The module `torch.nn`."""

    Module, Parameter, Buffer = Module, Parameter, Buffer
    Linear, Bilinear, Embedding = Linear, Bilinear, Embedding
    LayerNorm, RMSNorm, GroupNorm = LayerNorm, RMSNorm, GroupNorm
    BatchNorm1d = BatchNorm2d = BatchNorm3d = SyncBatchNorm = BatchNorm
    InstanceNorm1d = InstanceNorm2d = InstanceNorm
    Conv1d, Conv2d, Conv3d = convolution(1), convolution(2), convolution(3)
    ConvTranspose1d, ConvTranspose2d, ConvTranspose3d = (
        convolution(1, True),
        convolution(2, True),
        convolution(3, True),
    )
    MultiheadAttention, LSTM, GRU, GRUCell, PReLU = MultiheadAttention, LSTM, GRU, GRUCell, PReLU
    ModuleList = ParameterList = ModuleList
    ModuleDict = ParameterDict = ModuleDict
    Sequential = Sequential
    utils = _Utils()

    def __init__(self, functional: Any) -> None:
        self.functional = functional
        self.init = functional

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Module,), {})
        setattr(self, name, made)
        return made
