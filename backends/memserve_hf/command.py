"""What a `transformers serve` line asks for."""

from memserve.engines.command import Grammar, read
from memserve.engines.deployment import Deployment
from memserve.engines.unstated import UNBOUNDED
from memserve.errors import InvalidInput
from memserve_hf.launch import WORDS

FLAGS = Grammar(switches=frozenset({"trust-remote-code", "continuous-batching", "compile", "enable-cors"}))


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of such a line, which bounds no context; None if it starts another."""
    from memserve_hf import backend

    arguments = backend.arguments(command)
    if arguments is None:
        return None
    words = read(arguments, FLAGS)
    named = words.bare[0] if words.bare else words.text("force-model")
    if not named:
        raise InvalidInput("the command names no model", hint="write transformers serve MODEL ...")
    online = words.text("quantization")
    return named, Deployment(
        backend="hf", engine_version="", context=UNBOUNDED, dtype=words.text("dtype") or "auto",
        quantization=next((method for method, word in WORDS.items() if word == online), "none"),
    )  # fmt: skip
