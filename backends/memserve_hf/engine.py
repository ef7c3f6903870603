"""Opens a model for one task."""

from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.extras import need
from memserve.protocol import Task
from memserve_hf.capabilities import AT_BEST
from memserve_hf.options import read

capabilities = AT_BEST


def open_engine(model: str | None = None, *, task: Task = "generate", server: bool = False,
                **given: Any) -> Any:  # fmt: skip
    """An engine for a task, from a folder or a hub id; options are `memserve_hf.options.Options`.

    `server=True` starts `transformers serve` as a process of its own; `python=` names its interpreter.
    """
    if model is None:
        raise InvalidInput("backend 'hf' needs a model: a folder or a hub id")
    if server:
        from memserve_hf.served import serve

        return serve(str(model), task, given)
    options = read(given)
    torch = need("hf", "torch")
    need("hf", "transformers")
    if options.threads:
        torch.set_num_threads(options.threads)
    if task == "generate":
        from memserve_hf.assembly import generating

        return generating(str(model), options)
    if task == "embed":
        from memserve_hf.embedding import embedding

        return embedding(str(model), options)
    if task == "rerank":
        from memserve_hf.reranking import reranking

        return reranking(str(model), options)
    raise Unsupported("hf", f"task={task!r}")
