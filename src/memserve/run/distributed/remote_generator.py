"""How a worker opens the generator that the caller named, and how things travel to it and back."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from memserve.errors import EngineFailed, InvalidInput
from memserve.protocol import Capabilities


@dataclass(frozen=True)
class RemoteGenerator:
    """Opens a generator in a worker. Stands for it in the caller's process, where no engine is loaded."""

    open: Callable[[], Any] = field(repr=False)
    capabilities: Capabilities
    identity: dict[str, str]

    @property
    def batches(self) -> bool:
        """The engine wants lists."""
        return self.capabilities.batches


def remote(generator: Any) -> RemoteGenerator:
    """From a generator that memserve opened, or from anything that opens one when called."""
    from memserve.client import opener as opener_of

    generates = not isinstance(generator, type) and (
        hasattr(generator, "agenerate") or hasattr(generator, "generate")
    )
    opener = opener_of(generator) if generates else generator
    if opener is None or not callable(opener):
        raise InvalidInput(
            f"workers cannot open a {type(generator).__name__} of their own",
            hint="pass what opens it: functools.partial(memserve.generator, 'model', backend='NAME')",
        )
    known = generator.capabilities if generates else _capabilities(opener)
    own = generator.identity if generates else {"backend": known.backend, "model": known.model}
    try:
        pack(opener)
    except Exception as broken:
        raise InvalidInput(f"what opens the generator cannot be sent to workers: {broken}") from broken
    return RemoteGenerator(opener, known, {name: str(value) for name, value in own.items() if value})


def _capabilities(opener: Any) -> Capabilities:
    """What the backend that will be opened says of itself; nothing is known of another callable."""
    known = getattr(opener, "capabilities", None)
    if isinstance(known, Capabilities):
        return known
    if not isinstance(opener, partial) or opener.keywords.get("backend") is None:
        return Capabilities(backend=getattr(opener, "__name__", "workers"), model=None)
    from dataclasses import replace

    from memserve import registry

    model = opener.args[0] if opener.args else opener.keywords.get("model_or_plan")
    found = registry.find(str(opener.keywords["backend"])).capabilities
    return replace(found, model=model if isinstance(model, str) else None)


def pack(value: Any) -> bytes:
    """By value where pickle can only name things: what a script or a notebook defines."""
    try:
        from ray import cloudpickle
    except ImportError:
        return pickle.dumps(value)
    packed: bytes = cloudpickle.dumps(value)
    return packed


def unpack(packed: bytes) -> Any:
    """What was packed by us, in another process of this run."""
    return pickle.loads(packed)


def packed_answer(answer: Any) -> bytes:
    """An answer, or the error instead of it; one that cannot travel goes as words."""
    try:
        packed = pack(answer)
        unpack(packed)
    except Exception:
        return pack(EngineFailed(f"{type(answer).__name__}: {answer}"))
    return packed
