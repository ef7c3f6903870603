"""Import it, and Dataset.map knows a function that holds an open generator or embedder by its model."""

from typing import Any, NoReturn

from datasets.utils.py_utils import pklregister

from memserve.client.generation import Generator
from memserve.client.pooling import Embedder
from memserve.errors import InvalidInput


def _known(pickler: Any, opened: Any) -> None:
    """What the fingerprint is made of: backend, engine, model, address; never a key."""
    own = opened.capabilities
    about = getattr(opened, "identity", {"backend": own.backend, "engine": own.engine, "model": own.model})
    pickler.save_reduce(_refused, (type(opened).__name__, sorted(about.items())), obj=opened)


def _refused(*about: object) -> NoReturn:
    raise InvalidInput("a fingerprint opens nothing")


for kind in (Generator, Embedder):
    pklregister(kind)(_known)
