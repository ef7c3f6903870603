"""A tensor that is only a shape, and the torch functions that constructors call."""

from __future__ import annotations

from contextlib import nullcontext
from math import ceil, prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Shape(tuple[int, ...]):
    """torch.Size: a tuple that knows its product."""

    def numel(self) -> int:
        return prod(self)


class Device:
    """Nothing is computed anywhere."""

    type = "meta"

    def __init__(self, *_args: Any) -> None:
        """Any name will do."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    __hash__ = None  # type: ignore[assignment]


class Tensor:
    """A shape. Arithmetic broadcasts it, everything else that is unknown leaves it as it is."""

    __array_ufunc__ = None  # numpy's operators leave the work to ours

    def __init__(self, *shape: Any) -> None:
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if len(shape) == 1 and hasattr(shape[0], "shape"):
            sizes = shape[0].shape
        self.shape = Shape(int(size) for size in sizes)

    @property
    def data(self) -> Tensor:
        return self

    @data.setter
    def data(self, value: Tensor) -> None:
        self.shape = value.shape

    @property
    def device(self) -> Device:
        return Device()

    @property
    def dtype(self) -> str:
        return "float32"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def T(self) -> Tensor:  # noqa: N802
        return Tensor(*reversed(self.shape))

    def numel(self) -> int:
        return prod(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    def item(self) -> float:
        return 0.0

    def tolist(self) -> Any:
        return [0.0] * self.shape[0] if self.shape else 0.0

    def reshape(self, *shape: Any) -> Tensor:
        sizes = list(Tensor(*shape).shape)
        if -1 in sizes:
            known = prod(size for size in sizes if size != -1) or 1
            sizes[sizes.index(-1)] = self.numel() // known
        return Tensor(*sizes)

    view = reshape

    def expand(self, *shape: Any) -> Tensor:
        sizes = Tensor(*shape).shape
        own = (1,) * (len(sizes) - len(self.shape)) + tuple(self.shape)
        return Tensor(*(mine if size == -1 else size for size, mine in zip(sizes, own, strict=True)))

    def repeat(self, *times: Any) -> Tensor:
        counts = Tensor(*times).shape
        own = (1,) * (len(counts) - len(self.shape)) + tuple(self.shape)
        return Tensor(*(size * count for size, count in zip(own, counts, strict=True)))

    def unsqueeze(self, dim: int) -> Tensor:
        sizes = list(self.shape)
        sizes.insert(dim if dim >= 0 else len(sizes) + dim + 1, 1)
        return Tensor(*sizes)

    def squeeze(self, dim: int | None = None) -> Tensor:
        if dim is None:
            return Tensor(*(size for size in self.shape if size != 1))
        sizes = list(self.shape)
        if sizes[dim] == 1:
            sizes.pop(dim)
        return Tensor(*sizes)

    def permute(self, *order: Any) -> Tensor:
        return Tensor(*(self.shape[index] for index in Tensor(*(o % self.ndim for o in _flat(order))).shape))

    def transpose(self, first: int, second: int) -> Tensor:
        sizes = list(self.shape)
        sizes[first], sizes[second] = sizes[second], sizes[first]
        return Tensor(*sizes)

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        sizes = list(self.shape)
        last = end % len(sizes)
        return Tensor(*sizes[:start], prod(sizes[start : last + 1]), *sizes[last + 1 :])

    def split(self, sizes: Any, dim: int = 0) -> list[Tensor]:
        length = self.shape[dim]
        parts = sizes if isinstance(sizes, (list, tuple)) else [sizes] * (length // sizes)
        return [Tensor(*self.shape[:dim], part, *self.shape[dim + 1 :]) for part in parts]

    def outer(self, other: Tensor) -> Tensor:
        return Tensor(*self.shape, *other.shape)

    def t(self) -> Tensor:
        return self.T

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __iter__(self) -> Iterator[Tensor]:
        return iter([Tensor(*self.shape[1:])] * len(self))

    def __float__(self) -> float:
        return 0.0

    def __bool__(self) -> bool:
        return False

    def __getitem__(self, key: Any) -> Tensor:
        return _indexed(self, key if isinstance(key, tuple) else (key,))

    def __setitem__(self, key: Any, value: Any) -> None:
        """Values do not matter."""

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_named: self

    def _with(self, other: Any) -> Tensor:
        return Tensor(*_broadcast(self.shape, getattr(other, "shape", ())))

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _with
    __pow__ = __rpow__ = __floordiv__ = __rfloordiv__ = __mod__ = __and__ = __or__ = __xor__ = _with
    __lt__ = __le__ = __gt__ = __ge__ = _with

    def __neg__(self) -> Tensor:
        return self

    __invert__ = __abs__ = __neg__

    def __matmul__(self, other: Tensor) -> Tensor:
        return Tensor(*self.shape[:-1], *other.shape[1:])


def _flat(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def _broadcast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    width = max(len(first), len(second))
    left, right = (1,) * (width - len(first)) + first, (1,) * (width - len(second)) + second
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))


def _indexed(tensor: Tensor, keys: tuple[Any, ...]) -> Tensor:
    sizes: list[int] = []
    rest = list(tensor.shape)
    for place, found in enumerate(keys):
        if found is None:
            sizes.append(1)
        elif found is Ellipsis:
            later = sum(k is not None for k in keys[place + 1 :])
            take = len(rest) - later
            sizes += rest[:take]
            del rest[:take]
        elif isinstance(found, slice):
            sizes.append(len(range(*found.indices(rest.pop(0)))))
        elif isinstance(found, Tensor):
            rest.pop(0)
            sizes += found.shape
        else:
            rest.pop(0)
    return Tensor(*sizes, *rest)


class Torch:
    """The module `torch`, as far as constructors go."""

    def __init__(self, nn: Any) -> None:
        self.nn = nn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _function(name)

    @staticmethod
    def arange(*bounds: Any, **_named: Any) -> Tensor:
        start, stop, step = (0, *bounds, 1) if len(bounds) == 1 else (*bounds, 1)[:3]
        return Tensor(max(0, ceil((float(stop) - float(start)) / float(step))))

    @staticmethod
    def linspace(_start: Any, _stop: Any, steps: int, **_named: Any) -> Tensor:
        return Tensor(steps)

    @staticmethod
    def eye(rows: int, columns: int | None = None, **_named: Any) -> Tensor:
        return Tensor(rows, rows if columns is None else columns)

    @staticmethod
    def tensor(values: Any, **_named: Any) -> Tensor:
        sizes = []
        while isinstance(values, (list, tuple)):
            sizes.append(len(values))
            values = values[0] if values else None
        return values if isinstance(values, Tensor) and not sizes else Tensor(*sizes)

    as_tensor = from_numpy = tensor

    @staticmethod
    def full(size: Any, *_args: Any, **_named: Any) -> Tensor:
        return Tensor(size)

    @staticmethod
    def outer(first: Tensor, second: Tensor) -> Tensor:
        return Tensor(*first.shape, *second.shape)

    @staticmethod
    def stack(parts: Any, dim: int = 0, **_named: Any) -> Tensor:
        sizes = list(parts[0].shape)
        sizes.insert(dim if dim >= 0 else len(sizes) + dim + 1, len(parts))
        return Tensor(*sizes)

    @staticmethod
    def cat(parts: Any, dim: int = 0, **_named: Any) -> Tensor:
        sizes = list(parts[0].shape)
        sizes[dim] = sum(part.shape[dim] for part in parts)
        return Tensor(*sizes)

    concat = cat

    @staticmethod
    def meshgrid(*axes: Any, **_named: Any) -> list[Tensor]:
        flat = _flat(axes)
        return [Tensor(*(axis.shape[0] for axis in flat))] * len(flat)

    @staticmethod
    def get_default_dtype() -> str:
        return "float32"


CREATORS = frozenset({"empty", "zeros", "ones", "rand", "randn", "FloatTensor"})
DTYPES = frozenset({"float", "float16", "float32", "float64", "bfloat16", "half", "double", "long", "int",
                    "int32", "int64", "int8", "uint8", "bool", "complex64", "dtype"})  # fmt: skip


NAMESPACES = frozenset(
    {"fft", "linalg", "cuda", "distributions", "backends", "jit", "special", "onnx", "amp"}
)


class Function:
    """torch.autograd.Function."""

    @classmethod
    def apply(cls, *args: Any, **_named: Any) -> Any:
        return args[0] if args else None


VALUES = frozenset({"argmin", "argmax", "unique", "nonzero"})


def _function(name: str) -> Any:
    if name in VALUES:
        raise NotImplementedError(f"torch.{name} depends on values, and here are only shapes")
    if name in NAMESPACES:
        return Torch(None)
    if name in CLASSES:
        return CLASSES[name]
    if name == "autograd":
        return type("autograd", (), {"Function": Function})
    if name in DTYPES:
        return name
    if name in CREATORS:
        return lambda *shape, **named: Tensor(*(shape or (named.get("size", ()),)))
    if name in ("no_grad", "inference_mode"):
        return nullcontext
    return _same


CLASSES = {"Tensor": Tensor, "Size": Shape, "device": Device}


def _same(*args: Any, size: Any = (), **_named: Any) -> Tensor:
    return args[0] if args and isinstance(args[0], Tensor) else Tensor(size)
