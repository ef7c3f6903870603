"""Opens the embedded models, or says what to install."""

from importlib.util import find_spec
from typing import Any

from memserve.errors import BackendMissing, InvalidInput, Unsupported
from memserve.missing import missing
from memserve.options import named
from memserve.protocol import Task
from memserve_embedded import backend


def open_engine(model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
    """The embedded model for a task. Any other model is opened by the backend of transformers."""
    if model is not None and model.lower() not in backend.own_names:
        from memserve.registry import find

        try:
            return find("hf").open(model, task=task, **options)
        except BackendMissing as error:
            needs = f"{error.needs} to open {model!r} (embedded are only {', '.join(backend.own_names[1:])})"
            raise BackendMissing(error.backend, needs=needs, install=error.install) from error
    options = named("embedded", options, ("threads", "context"))
    threads, context = _whole(options, "threads"), _whole(options, "context")
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
