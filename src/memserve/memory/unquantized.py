"""Which weights a quantized checkpoint leaves in 16 bit, read from the module names its config lists."""

import re
from collections.abc import Callable, Iterable

_PREFIX = re.compile(r"^(?:model\.|language_model\.|text_model\.|transformer\.)+")
_LAYER = re.compile(r"^(?:layers|h|blocks)\.(\d+|\*)\.?")


class Ignored:
    """A config's list of ignored modules, as a question that can be asked of each layer's weights."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.everywhere: list[Callable[[str], bool]] = []
        self.by_layer: dict[int, list[str]] = {}
        self.regular: list[re.Pattern[str]] = []
        for pattern in patterns:
            self._add(pattern)

    def _add(self, pattern: str) -> None:
        if pattern.startswith("re:"):
            try:
                self.regular.append(re.compile(pattern[3:]))
            except re.error:
                return
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
        return any(pattern.match(full) for pattern in self.regular)


def within(part: str, name: str) -> bool:
    """Whether the module path `part` is a run of whole components of `name` (an empty one is all of it)."""
    if "*" in part:
        from fnmatch import fnmatchcase

        return fnmatchcase(name, part) or fnmatchcase(name, f"{part}.*")
    return not part or f".{part}." in f".{name}."


def _matcher(part: str) -> Callable[[str], bool]:
    return lambda name: within(part, name)
