"""What a `transformers serve` line asks for."""

from memserve.engines.deployment import Deployment
from memserve.engines.unstated import UNBOUNDED
from memserve.errors import InvalidInput
from memserve_hf.launch import WORDS

SWITCHES = {"load-in-4bit": "nf4", "load-in-8bit": "int8"}
"""How releases before 5.0 said it."""


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of such a line, which bounds no context; None if it starts another."""
    from memserve_hf import backend

    words = backend.words(command)
    if words is None:
        return None
    named = words.bare[0] if words.bare else words.text("force-model")
    if not named:
        raise InvalidInput("the command names no model", hint="write transformers serve MODEL ...")
    online = words.text("quantization")
    asked = next((method for name, method in SWITCHES.items() if words.flag(name)), "none")
    return named, Deployment(
        backend="hf", engine_version="", context=UNBOUNDED,
        dtype=words.text("dtype") or words.text("torch-dtype") or "auto",
        quantization=next((method for method, word in WORDS.items() if word == online), asked),
        options=words.given(),
    )  # fmt: skip
