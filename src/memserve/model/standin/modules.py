"""torch.nn with parameters that are only shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.model.standin.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator


class Parameter(Tensor):
    """A weight."""

    def __init__(self, data: Tensor | None = None, *_args: Any, **_named: Any) -> None:
        super().__init__(*(data.shape if data is not None else (0,)))


class Buffer(Tensor):
    """A tensor that is no weight."""

    def __init__(self, data: Tensor | None = None, *_args: Any, **_named: Any) -> None:
        super().__init__(*(data.shape if data is not None else (0,)))


class Module:
    """A node of the tree; also every module that has no weights."""

    training = False

    def __init__(self, *_args: Any, **_named: Any) -> None:
        """Takes anything."""

    def __call__(self, *_args: Any, **_named: Any) -> Any:
        return self

    def parts(self) -> Iterator[tuple[str, Module | Parameter]]:
        """Own modules and weights in the order they were made."""
        for name, value in vars(self).items():
            if isinstance(value, (Module, Parameter)):
                yield name, value

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        yield self
        for _, part in self.parts():
            if isinstance(part, Module):
                yield from part.modules()

    def children(self) -> Iterator[Module]:
        return (part for _, part in self.parts() if isinstance(part, Module))

    @property
    def _modules(self) -> Any:
        return vars(self)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, part) for name, part in list(self.parts()) if isinstance(part, Module))

    def get_submodule(self, path: str) -> Any:
        found: Any = self
        for name in filter(None, path.split(".")):
            found = dict(found.parts())[name]
        return found

    def parameters(self) -> Iterator[Parameter]:
        return (value for _, value in walk(self))

    def register_buffer(self, name: str, tensor: Tensor | None, *_args: Any, **_named: Any) -> None:
        setattr(self, name, None if tensor is None else Buffer(tensor))

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        setattr(self, name, value)

    def add_module(self, name: str, module: Module | None) -> None:
        setattr(self, name, module)

    register_module = add_module

    def _nothing(self, *_args: Any, **_named: Any) -> Any:
        return self

    to = eval = train = half = float = apply = requires_grad_ = register_load_state_dict_pre_hook = _nothing
    register_forward_hook = register_forward_pre_hook = _register_load_state_dict_pre_hook = _nothing


def walk(module: Module, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Parameter]]:
    """Every weight once, with its name."""
    seen = set() if seen is None else seen
    for name, value in module.parts():
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Parameter):
            yield f"{prefix}{name}", value
        else:
            yield from walk(value, f"{prefix}{name}.", seen)


def weight(*shape: Any) -> Parameter:
    """A new weight."""
    made = Parameter(Tensor(*shape))
    if any(side < 0 for side in made.shape):
        raise ValueError(f"a weight cannot have the shape {tuple(made.shape)}")
    return made


def _sizes(kernel: Any, dims: int) -> tuple[int, ...]:
    return tuple(kernel) if isinstance(kernel, (tuple, list)) else (int(kernel),) * dims


class Linear(Module):
    """A matrix and a bias."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *_args: Any,
                 **_named: Any) -> None:  # fmt: skip
        self.in_features, self.out_features = in_features, out_features
        self.weight = weight(out_features, in_features)
        self.bias = weight(out_features) if bias else None


class Bilinear(Module):
    """A matrix for each output."""

    def __init__(self, first: int, second: int, out: int, bias: bool = True, **_named: Any) -> None:
        self.weight = weight(out, first, second)
        self.bias = weight(out) if bias else None


class Embedding(Module):
    """A table."""

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: Any = None, *_args: Any,
                 **_named: Any) -> None:  # fmt: skip
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.weight = weight(num_embeddings, embedding_dim)


class LayerNorm(Module):
    """A scale and a shift."""

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, **_named: Any) -> None:  # fmt: skip
        self.normalized_shape = _sizes(normalized_shape, 1)
        self.weight = weight(*self.normalized_shape) if elementwise_affine else None
        self.bias = weight(*self.normalized_shape) if elementwise_affine and bias else None


class RMSNorm(Module):
    """A scale."""

    def __init__(self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
                 **_named: Any) -> None:  # fmt: skip
        self.weight = weight(*_sizes(normalized_shape, 1)) if elementwise_affine else None


class GroupNorm(Module):
    """A scale and a shift for each channel."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
                 **_named: Any) -> None:  # fmt: skip
        self.weight = weight(num_channels) if affine else None
        self.bias = weight(num_channels) if affine else None


class BatchNorm(Module):
    """A scale and a shift; the running statistics are buffers."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
                 affine: bool = True, **_named: Any) -> None:  # fmt: skip
        self.num_features = num_features
        self.weight = weight(num_features) if affine else None
        self.bias = weight(num_features) if affine else None
        self.running_mean, self.running_var = Buffer(Tensor(num_features)), Buffer(Tensor(num_features))


class InstanceNorm(BatchNorm):
    """Without weights unless asked."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 **_named: Any) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine)


class _Conv(Module):
    dims = 1
    transposed = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, *rest: Any, groups: int = 1, bias: bool = True,
                 **_named: Any) -> None:  # fmt: skip
        place = 1  # after dilation, or after output_padding
        if len(rest) > place:
            groups = rest[place]
        if len(rest) > place + 1:
            bias = rest[place + 1]
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = _sizes(kernel_size, self.dims)
        self.stride, self.padding = _sizes(stride, self.dims), padding
        self.dilation = (1,) * self.dims
        outer, inner = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        self.weight = weight(outer, inner // groups, *self.kernel_size)
        self.bias = weight(out_channels) if bias else None


def convolution(dimensions: int, is_transposed: bool = False) -> type[_Conv]:
    """nn.Conv1d to nn.ConvTranspose3d."""
    return type("Conv", (_Conv,), {"dims": dimensions, "transposed": is_transposed})


class MultiheadAttention(Module):
    """torch's own attention."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, **_named: Any) -> None:  # fmt: skip
        same = kdim in (None, embed_dim) and vdim in (None, embed_dim)
        self.in_proj_weight = weight(3 * embed_dim, embed_dim) if same else None
        self.q_proj_weight = None if same else weight(embed_dim, embed_dim)
        self.k_proj_weight = None if same else weight(embed_dim, kdim or embed_dim)
        self.v_proj_weight = None if same else weight(embed_dim, vdim or embed_dim)
        self.in_proj_bias = weight(3 * embed_dim) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        self.bias_k = weight(1, 1, embed_dim) if add_bias_kv else None
        self.bias_v = weight(1, 1, embed_dim) if add_bias_kv else None


class _Recurrent(Module):
    gates = 1

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 **_named: Any) -> None:  # fmt: skip
        rows, ways = self.gates * hidden_size, 2 if bidirectional else 1
        for layer in range(num_layers):
            for way in range(ways):
                into = input_size if layer == 0 else hidden_size * ways
                name = f"l{layer}{'_reverse' if way else ''}"
                setattr(self, f"weight_ih_{name}", weight(rows, into))
                setattr(self, f"weight_hh_{name}", weight(rows, hidden_size))
                if bias:
                    setattr(self, f"bias_ih_{name}", weight(rows))
                    setattr(self, f"bias_hh_{name}", weight(rows))


class LSTM(_Recurrent):
    """Four gates."""

    gates = 4


class GRU(_Recurrent):
    """Three gates."""

    gates = 3


class _Cell(Module):
    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, **_named: Any) -> None:
        rows = self.gates * hidden_size
        self.weight_ih, self.weight_hh = weight(rows, input_size), weight(rows, hidden_size)
        self.bias_ih = weight(rows) if bias else None
        self.bias_hh = weight(rows) if bias else None


class GRUCell(_Cell):
    """Three gates."""

    gates = 3


class PReLU(Module):
    """A learned slope."""

    def __init__(self, num_parameters: int = 1, *_args: Any, **_named: Any) -> None:
        self.weight = weight(num_parameters)
