"""What the entry point of an HTTP backend resolves to: nothing to plan, an engine to open."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

from memserve.protocol import Capabilities, Task


class HttpBackend:
    """A backend whose `<package>.engine` holds `capabilities` and `open_engine`; loaded when first asked."""

    rules: None = None
    memory: None = None
    launch: None = None

    def __init__(self, name: str, package: str, *, keys: Sequence[str] = (), closed: bool = False) -> None:
        self.name = name
        self.keys = keys
        """The environment variables that hold its keys, for `memserve doctor`."""
        self.closed = closed
        """Its service serves its maker's models only, and no server of one's own."""
        self._package = package

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do at best, before a model is named."""
        return cast("Capabilities", self._engine().capabilities)

    def open(self, model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
        """An engine for one task; nothing is sent yet."""
        return self._engine().open_engine(model, task=task, **options)

    def _engine(self) -> Any:
        return import_module(f"{self._package}.engine")
