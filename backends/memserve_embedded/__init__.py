"""The embedded default: a small model that needs no GPU, no hub and no key, on OpenVINO."""

from typing import Any

from memserve.protocol import Capabilities, Task


class EmbeddedBackend:
    """What `memserve.generator()` and `memserve.embedder()` open when nothing is named."""

    name = "embedded"
    default = True
    """It answers when no backend is named."""

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do; loads no engine."""
        from memserve_embedded.capabilities import AT_BEST

        return AT_BEST

    def open(self, model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
        """The embedded model for a task; a model that is named goes to the backend hf."""
        from memserve_embedded.engine import open_engine

        return open_engine(model, task=task, **options)


backend = EmbeddedBackend()
