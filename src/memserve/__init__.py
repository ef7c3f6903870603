"""Plan, run and judge language and embedding models on whatever hardware a researcher has.

Nothing heavy is loaded here: every public name is fetched when it is first used.
"""

from __future__ import annotations

from memserve import lazy

TYPE_CHECKING = False  # what checkers take for true; importing `typing` would be most of this module's cost
if TYPE_CHECKING:
    from memserve import errors as errors
    from memserve import hardware as hardware
    from memserve import memory as memory
    from memserve import model as model
    from memserve import plan as plan
    from memserve import protocol as protocol
    from memserve import registry as registry
    from memserve import run as run
    from memserve import speed as speed
    from memserve import tools as tools
    from memserve.client import embedder as embedder
    from memserve.client import generator as generator
    from memserve.client import reranker as reranker
    from memserve.protocol import Capabilities as Capabilities
    from memserve.protocol import Completion as Completion
    from memserve.protocol import Delta as Delta
    from memserve.protocol import Embeddings as Embeddings
    from memserve.protocol import Ranking as Ranking
    from memserve.protocol import Raw as Raw
    from memserve.protocol import Request as Request
    from memserve.protocol import Score as Score
    from memserve.protocol import Usage as Usage
    from memserve.run.routing import route as route

__version__ = "0.1.0"

_VALUES = (
    "Capabilities", "Completion", "Delta", "Embeddings", "Ranking", "Raw", "Request", "Score", "Usage",
)  # fmt: skip
_PARTS = ("errors", "hardware", "memory", "model", "plan", "protocol", "registry", "run", "speed", "tools")
_HOMES = {
    **dict.fromkeys(("embedder", "generator", "reranker"), "client"),
    **dict.fromkeys(_VALUES, "protocol"),
    **dict(zip(_PARTS, _PARTS, strict=True)),
    "route": "run.routing",
}
__all__ = ["__version__", *sorted(_HOMES)]
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
