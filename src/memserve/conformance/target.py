"""What is under test: a backend, a model and options, opened the way a user opens them."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import memserve
from memserve.protocol import Capabilities, Task


def add_options(parser: pytest.Parser) -> None:
    """The suite's own command line."""
    group = parser.getgroup("memserve conformance")
    group.addoption("--backend", help="the backend to judge, by its entry point's name")
    group.addoption("--model", help="a folder, a hub id, or the name that a server knows")
    group.addoption("--options", nargs="+", action="extend", default=[], metavar="K=V",
                    help="passed on to memserve.generator and memserve.embedder")  # fmt: skip
    group.addoption("--task", choices=("generate", "embed", "rerank"), action="append",
                    help="judge only this; default: what the model is for")  # fmt: skip
    group.addoption("--conformance-report", metavar="FILE", help="write the report as JSON")


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _options(words: list[str]) -> dict[str, Any]:
    bad = [word for word in words if "=" not in word]
    if bad:
        raise pytest.UsageError(f"--options takes K=V, not {bad[0]!r}")
    return {key: _value(value) for key, _, value in (word.partition("=") for word in words)}


@dataclass(frozen=True)
class Target:
    """The command line's answer to: what is to be judged?"""

    backend: str | None
    model: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: tuple[Task, ...] = ()

    @classmethod
    def from_config(cls, config: pytest.Config) -> Target:
        """Read the options; a missing backend is a usage error."""
        backend = config.getoption("--backend")
        if not backend:
            raise pytest.UsageError(
                f"--backend NAME is needed; installed: {', '.join(memserve.registry.names())}"
            )
        return cls(
            backend, config.getoption("--model"), _options(config.getoption("--options")),
            tuple(config.getoption("--task") or ()),
        )  # fmt: skip

    @property
    def folder(self) -> Path | None:
        """The checkpoint's folder, where the model is one."""
        path = Path(self.model) if self.model else None
        return path if path and path.is_dir() else None

    def generator(self, **more: Any) -> Any:
        """Open a generator; the name is looked up at each call, as a user's own code does."""
        return memserve.generator(self.model, backend=self.backend, **{**self.options, **more})

    def embedder(self, **more: Any) -> Any:
        """Open an embedder."""
        return memserve.embedder(self.model, backend=self.backend, **{**self.options, **more})

    def reranker(self, **more: Any) -> Any:
        """Open a reranker."""
        return memserve.reranker(self.model, backend=self.backend, **{**self.options, **more})

    def tasks(self) -> tuple[Task, ...]:
        """What to judge: what was asked for, else what the model is for, else all that the backend does."""
        able: Capabilities = memserve.registry.find(str(self.backend)).capabilities
        if self.asked:
            return self.asked
        if self.folder and (purpose := purpose_of(self.folder)):
            return (purpose,)
        if self.model and "generate" in able.tasks:
            return ("generate",)
        return tuple(sorted(able.tasks))


def purpose_of(folder: Path) -> Task | None:
    """What a checkpoint is for, by its own files; None where they do not say."""
    if (folder / "modules.json").exists() or (folder / "1_Pooling").is_dir():
        return "embed"
    config = folder / "config.json"
    if not config.exists():
        return None
    names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    name = names[0] if names else ""
    if name.endswith("SequenceClassification"):
        return "rerank"
    generates = name.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration"))
    return None if not name else "generate" if generates else "embed"


def prompts_of(folder: Path) -> dict[str, str]:
    """The prompts for roles that a checkpoint's own files name."""
    config = folder / "config_sentence_transformers.json"
    if not config.exists():
        return {}
    return dict(json.loads(config.read_text(encoding="utf-8")).get("prompts") or {})
