"""What decides an answer beside the request: the key of caches of answers and vectors."""

from memserve_hf.opening.checkpoint import Checkpoint
from memserve_hf.opening.device import Place
from memserve_hf.opening.quantizing import stored
from memserve_hf.options import Options


def identity(found: Checkpoint, options: Options, place: Place) -> dict[str, str]:
    """Name and value of everything that a cached answer depends on."""
    known = {
        "folder": str(found.folder.resolve()), "revision": options.revision, "dtype": place.dtype,
        "quantization": options.quantization or stored(found.config) or "none", "device": place.kind,
        "attention": place.attention, "adapter": options.adapter, "tokenizer": options.tokenizer,
        "pooling": options.pooling, "query_model": options.query_model,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value}
