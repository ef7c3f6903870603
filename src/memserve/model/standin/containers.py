"""Modules that hold modules: lists, tables and sequences."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from memserve.model.standin.modules import Module, Parameter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class ModuleList(Module):
    """Modules by number."""

    def __init__(self, modules: Iterable[Any] = ()) -> None:
        self.items: list[Any] = list(modules or ())

    def parts(self) -> Iterator[tuple[str, Module | Parameter]]:
        for index, value in enumerate(self.items):
            if isinstance(value, (Module, Parameter)):
                yield str(index), value

    def append(self, module: Any) -> ModuleList:
        self.items.append(module)
        return self

    def add_module(self, name: str, module: Any) -> None:
        self.append(module)

    register_module = add_module

    def extend(self, modules: Iterable[Any]) -> ModuleList:
        self.items.extend(modules)
        return self

    def insert(self, index: int, module: Any) -> None:
        self.items.insert(index, module)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def __getitem__(self, key: Any) -> Any:
        return type(self)(self.items[key]) if isinstance(key, slice) else self.items[key]

    def __setitem__(self, key: int, value: Any) -> None:
        self.items[key] = value


class ModuleDict(Module):
    """Modules by name."""

    def __init__(self, modules: Any = None) -> None:
        self.items_: dict[str, Any] = dict(modules or {})

    def parts(self) -> Iterator[tuple[str, Module | Parameter]]:
        for name, value in self.items_.items():
            if isinstance(value, (Module, Parameter)):
                yield name, value

    def __setitem__(self, key: str, value: Any) -> None:
        self.items_[key] = value

    def __getitem__(self, key: str) -> Any:
        return self.items_[key]

    def __contains__(self, key: str) -> bool:
        return key in self.items_

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_)

    def __len__(self) -> int:
        return len(self.items_)

    def items(self) -> Any:
        return self.items_.items()

    def keys(self) -> Any:
        return self.items_.keys()

    def values(self) -> Any:
        return self.items_.values()

    def update(self, modules: Any) -> None:
        self.items_.update(modules)


class Sequential(ModuleList):
    """Modules one after the other."""

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], (OrderedDict, dict)):
            self.names = list(modules[0])
            super().__init__(modules[0].values())
        else:
            flat = modules[0] if len(modules) == 1 and isinstance(modules[0], list) else modules
            super().__init__(flat)

    def add_module(self, name: str, module: Any) -> None:
        self.names = [*getattr(self, "names", map(str, range(len(self)))), name]
        self.append(module)

    def parts(self) -> Iterator[tuple[str, Module | Parameter]]:
        names = getattr(self, "names", None)
        for number, value in super().parts():
            yield (names[int(number)] if names and int(number) < len(names) else number), value
