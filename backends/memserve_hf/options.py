"""What `open` takes, read from keywords or a command line's strings, and what can be done at best."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from memserve.errors import InvalidInput
from memserve.options import named
from memserve.protocol import Capabilities

AT_BEST = Capabilities(
    backend="hf", tasks=frozenset({"generate", "embed", "rerank"}), chat=True, tools=True, temperature=True,
    top_p=True, images=True,
    max_tokens=True, stop=True, usage=True, raw=True, token_ids=True, top_k=True, min_p=True, seed=True,
    n=True, logprobs=20, score=True, schema=True, regex=True, choices=True, truncate=True,
    thinking=frozenset({"on", "off", "budget"}), template=True, stream=True, returns_token_ids=True,
    deterministic=True, count_tokens=True, tokenizer=True, cancel=True, batches=True,
    roles=frozenset({"query", "document"}), normalize=True, dimensions=True,
    notes=("greedy answers repeat to the token in float32; half precision rounds differently in company",),
)  # fmt: skip

ENCODING = Capabilities(backend="hf", tasks=frozenset({"embed"}), usage=True, batches=True)
"""An encoder's: nothing of generation."""


DTYPES = ("float32", "float16", "bfloat16")
QUANTIZATIONS = ("none", "nf4", "fp4", "int8", "gptq", "awq", "compressed-tensors")
POOLINGS = ("mean", "cls", "last", "pooler", "max", "mean_sqrt_len", "weightedmean")
ALIASES = {"max_model_len": "context", "model_revision": "revision", "torch_dtype": "dtype"}
SPELLINGS = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32", "float": "float32"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a checkpoint is loaded and served. None: chosen from the checkpoint and the device."""

    dtype: str | None = None
    """float32, float16, bfloat16; "auto" is None: the checkpoint's own on a card, float32 on a CPU."""
    device: str | None = None
    """cpu, cuda, cuda:1, npu, ..."""
    device_map: Any = None
    """As transformers takes it: "auto" spreads the layers over every card."""
    max_memory: Any = None
    quantization: str | None = None
    """nf4, fp4 and int8 quantize a 16-bit checkpoint while loading; gptq, awq, ... assert what is stored."""
    attention: str | None = None
    """sdpa, eager, flash_attention_2, ..."""
    adapter: str | None = None
    """Folder or hub id of a LoRA adapter."""
    tokenizer: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    context: int | None = None
    """Prompt and answer together, at most this many tokens."""
    max_rows: int | None = None
    """Sequences decoded side by side."""
    prefill_tokens: int | None = None
    """Tokens of one prefill step."""
    kv_gib: float | None = None
    """Memory for the KV cache of the sequences in flight."""
    prefix_cache_gib: float | None = None
    """Memory for the KV cache of prefixes seen before; 0 turns it off."""
    threads: int | None = None
    """CPU threads of torch; None leaves them as they are."""
    packed: bool | None = None
    """False keeps torch's own linear layers on a CPU; otherwise float32 weights are packed for oneDNN."""
    check_memory: bool = True
    # embedding and reranking
    pooling: str | None = None
    query_model: str | None = None
    """The query encoder, where it is a checkpoint of its own (DPR, Dragon)."""
    max_length: int | None = None
    batch_tokens: int | None = None

    def said(self) -> dict[str, Any]:
        """What is not as it is by default."""
        told = {one.name: (getattr(self, one.name), one.default) for one in fields(self)}
        return {name: value for name, (value, usual) in told.items() if value != usual}


def read(given: Mapping[str, Any]) -> Options:
    """Options from keywords; strings are read as the field's type, unknown names are refused."""
    types = get_type_hints(Options)
    found = named("hf", given, types, spellings=ALIASES)
    values = {name: _coerce(name, value, types[name]) for name, value in found.items()}
    return _checked(Options(**values))


def _coerce(name: str, value: Any, kind: Any) -> Any:
    if value is None or kind is Any or not isinstance(value, str):
        return value
    wanted = next((t for t in get_args(kind) if t is not type(None)), kind)
    if value.lower() in ("none", "auto") and wanted is not bool and name != "quantization":
        return None
    try:
        return _boolean(value) if wanted is bool else wanted(value)
    except ValueError as error:
        raise InvalidInput(f"option {name}={value!r} is not {wanted.__name__}") from error


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _checked(options: Options) -> Options:
    dtype = _dtype_name(options.dtype)
    _one_of("dtype", dtype, DTYPES)
    _one_of("quantization", options.quantization, QUANTIZATIONS)
    _one_of("pooling", options.pooling, POOLINGS)
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, (int, float)) and value < 0:
            raise InvalidInput(f"option {field.name}={value} is negative")
    if options.adapter and Path(options.adapter).is_absolute() and not Path(options.adapter).is_dir():
        raise InvalidInput(f"option adapter: no folder {options.adapter}")
    return options if dtype == options.dtype else _with_dtype(options, dtype)


def _with_dtype(options: Options, dtype: str | None) -> Options:
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return Options(**{**values, "dtype": dtype})


def _dtype_name(value: Any) -> str | None:
    """`torch.float16`, "half" and "float16" are one."""
    if value is None or value == "auto":
        return None
    name = str(value).removeprefix("torch.")
    return SPELLINGS.get(name, name)


def _one_of(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise InvalidInput(f"option {name}={value!r} is not one of {', '.join(known)}")
