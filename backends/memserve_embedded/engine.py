"""Opens the embedded models, or says what to install."""

from importlib.util import find_spec
from typing import Any

from memserve.errors import BackendMissing, InvalidInput, Unsupported
from memserve.missing import missing
from memserve.protocol import Task

OWN_NAMES = ("default", "smollm2", "minilm")


def open_engine(model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
    """The embedded model for a task. Any other model is opened by the backend of transformers."""
    if model is not None and model.lower() not in OWN_NAMES:
        from memserve.registry import find

        try:
            return find("hf").open(model, task=task, **options)
        except BackendMissing as error:
            needs = f"{error.needs} to open {model!r} (embedded are only {', '.join(OWN_NAMES[1:])})"
            raise BackendMissing(error.backend, needs=needs, install=error.install) from error
    threads, context = _whole(options, "threads"), _whole(options, "context")
    if options:
        raise Unsupported(
            "embedded", f"the option {next(iter(options))!r}", hint="name a backend and a model"
        )
    if find_spec("openvino") is None:
        raise missing("embedded", "openvino-genai")
    if task == "generate":
        from memserve_embedded.generating import generating

        return generating(threads, context)
    if task == "embed":
        from memserve_embedded.embedding import embedding

        return embedding(threads)
    if task == "rerank":
        from memserve_embedded.embedding import EmbeddedReranker, embedding

        return embedding(threads, EmbeddedReranker)
    raise Unsupported("embedded", f"task={task!r}")


def _whole(options: dict[str, Any], name: str) -> int | None:
    value = options.pop(name, None)
    if value is None:
        return None
    if not str(value).isdecimal() or int(value) < 1:
        raise InvalidInput(f"option {name}={value!r} is not a whole number from 1")
    return int(value)
