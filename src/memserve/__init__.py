"""Plan, run and judge language and embedding models on whatever hardware a researcher has.

Nothing heavy is loaded here: every public name is fetched when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memserve import errors as errors
    from memserve import hardware as hardware
    from memserve import model as model
    from memserve import plan as plan
    from memserve import run as run
    from memserve import speed as speed
    from memserve.client import embedder as embedder
    from memserve.client import generator as generator
    from memserve.client import reranker as reranker
    from memserve.protocol import Capabilities as Capabilities
    from memserve.protocol import Completion as Completion
    from memserve.protocol import Delta as Delta
    from memserve.protocol import Embeddings as Embeddings
    from memserve.protocol import Raw as Raw
    from memserve.protocol import Request as Request
    from memserve.protocol import Score as Score
    from memserve.protocol import Usage as Usage

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("embedder", "generator", "reranker"), "memserve.client"),
    **dict.fromkeys(
        ("Capabilities", "Completion", "Delta", "Embeddings", "Raw", "Request", "Score", "Usage"),
        "memserve.protocol",
    ),
}
_ROOMS = frozenset({"errors", "hardware", "memory", "model", "plan", "protocol", "registry", "run", "speed"})
__all__ = ["__version__", *sorted(_HOMES), *sorted(_ROOMS)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _ROOMS:
        value = import_module(f"memserve.{name}")
    else:
        raise AttributeError(f"module 'memserve' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
