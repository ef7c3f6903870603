"""A toy backend, to show all that a stranger's package needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.errors import ModelUnreadable
from memserve.protocol import Capabilities

if TYPE_CHECKING:
    from memserve.protocol import Task


class Toy:
    """What the entry point names."""

    @property
    def capabilities(self) -> Capabilities:
        """At best; the engine that `open` returns knows more."""
        return Capabilities(
            backend="toy", tasks=frozenset({"generate", "embed", "rerank"}), chat=True, temperature=True,
            top_p=True, max_tokens=True, stop=True, usage=True,
        )  # fmt: skip

    def open(self, model: str | None = None, *, task: Task = "generate", api_key: str | None = None) -> Any:
        """Start the engine; a real one would raise BackendMissing where its package is not installed.

        The toy needs neither weights nor a key: a folder must only be there, and a key is not kept.
        """
        if model is not None and not (Path(model) / "tokenizer.json").exists():
            raise ModelUnreadable(f"{model}: no tokenizer.json in it", path=model)
        if task == "generate":
            from memserve_toy.engine import ToyEngine

            return ToyEngine()
        from memserve_toy.vectors import ToyEmbedder

        return ToyEmbedder()


backend = Toy()
