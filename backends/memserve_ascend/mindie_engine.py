"""MindIE is a server only: the planner configures it, the openai backend speaks to it."""

from typing import Any

from memserve.errors import Unsupported
from memserve.protocol import Capabilities, Task

capabilities = Capabilities(
    backend="mindie", chat=True, temperature=True, top_p=True, max_tokens=True, stop=True, usage=True,
    top_k=True, seed=True, n=True, stream=True,
)  # fmt: skip


def open_engine(model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
    """Refused, with the way to reach a running server."""
    raise Unsupported(
        "mindie", "an engine in this process",
        hint="start the plan's server and open backend='openai', base_url=..., dialect='mindie'",
    )  # fmt: skip
