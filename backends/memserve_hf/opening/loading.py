"""Loads tokenizers and models through transformers; what is broken comes out as `ModelUnreadable`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from memserve.errors import ModelUnreadable, Unsupported
from memserve.missing import missing, need
from memserve_hf.opening.checkpoint import Checkpoint, config_for
from memserve_hf.opening.device import Place
from memserve_hf.options import Options

if TYPE_CHECKING:
    from torch import Tensor


TOLERANCE = 1e-4
"""Of the largest output: float32 in another order of addition."""
_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError)
log = logging.getLogger("memserve.hf")


class PackedLinear(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """A linear layer whose weight lies as oneDNN reads it. The plain weight is let go."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach())
        self.bias = plain.bias

    def forward(self, states: Tensor) -> Tensor:
        """The layer's output, in float32."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return made

    def plain(self) -> Any:
        """The layer as it was."""
        layer = torch.nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        layer.weight = torch.nn.Parameter(self.weight.to_dense(), requires_grad=False)
        layer.bias = self.bias
        return layer


def pack(model: Any, options: Options, place: Place) -> None:
    """Pack every plain float32 linear layer of a model on a CPU, unless its answers change."""
    wanted = options.packed is not False and place.kind == "cpu" and options.device_map is None
    if not wanted or not torch.backends.mkldnn.is_available():
        return
    with torch.inference_mode():
        before = _answer(model)
        if before is None:
            return
        count = _replace(model, torch.nn.Linear, _packed)
        if not _alike(before, _answer(model)):
            # some models read the weights of their layers themselves (Mamba), and cannot read packed ones
            log.info("%s does not work with packed layers: they stay plain", type(model).__name__)
            _replace(model, PackedLinear, PackedLinear.plain)
            model.tie_weights()
            return
    log.debug("%d linear layers of %s are packed", count, type(model).__name__)


def _answer(model: Any) -> Tensor | None:
    """What the model makes of a few tokens; None where it asks for more than tokens."""
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    ids = torch.tensor([[(7 + 13 * i) % vocabulary for i in range(6)]])
    try:
        made: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    except _REFUSALS as error:
        log.info("%s does not answer a few tokens: %s", type(model).__name__, error)
        return None
    return made


def _alike(before: Tensor, after: Tensor | None) -> bool:
    return after is not None and bool((after - before).abs().max() <= TOLERANCE * before.abs().max())


def _replace(model: Any, kind: type, made_of: Any) -> int:
    """Put something else in the place of every layer of a kind; layers that are shared stay shared."""
    made: dict[int, Any] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                if id(child) not in made:
                    made[id(child)] = made_of(child)
                setattr(parent, name, made[id(child)])
    return len(made)


def _packed(plain: Any) -> Any:
    """The packed layer, where its weight is float32 and oneDNN takes it."""
    if plain.weight.dtype != torch.float32:
        return plain
    try:
        return PackedLinear(plain)
    except _REFUSALS as error:
        log.info("a linear layer stays plain: %s", error)
        return plain


def load_tokenizer(checkpoint: Checkpoint, options: Options) -> Any:
    """The checkpoint's tokenizer, or the one that `tokenizer=` names."""
    transformers = need("hf", "transformers")
    source = options.tokenizer or str(checkpoint.folder)
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=options.trust_remote_code)
    except ImportError as error:
        raise missing("hf", first_line(error)) from error
    except Exception as error:
        _refuse_remote_code(error)
        raise ModelUnreadable(
            f"the tokenizer in {source} cannot be read: {first_line(error)}", path=source, field="tokenizer",
            hint="it is tokenizer.json, or a file that a slow tokenizer reads; tokenizer= names another",
        ) from error  # fmt: skip


def load_model(checkpoint: Checkpoint, options: Options, place: Place, kinds: tuple[str, ...],
               optional: tuple[str, ...] = ()) -> Any:  # fmt: skip
    """The first of transformers' auto classes `kinds` that takes this architecture, in eval mode.

    Weights whose names begin with one of `optional` may be missing.
    """
    transformers = need("hf", "transformers")
    torch = need("hf", "torch")
    settings: dict[str, Any] = {
        "dtype": getattr(torch, place.dtype),
        "attn_implementation": place.attention,
        "trust_remote_code": options.trust_remote_code,
        "use_safetensors": None if options.allow_pickle else True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # told by `_complete`, with names and shapes
        "local_files_only": True,
        **config_for(checkpoint, options, place),
    }
    if options.device_map is not None:
        settings["device_map"] = options.device_map
        settings["max_memory"] = options.max_memory
    elif place.kind != "cpu":
        settings["device_map"] = {"": place.device}
    model, report = _first_that_fits(transformers, kinds, checkpoint, settings, options.attention)
    _complete(report, checkpoint, model, optional)
    return adapted(model, options).eval()


def _first_that_fits(transformers: Any, kinds: tuple[str, ...], checkpoint: Checkpoint,
                     settings: dict[str, Any], asked: str | None) -> Any:  # fmt: skip
    for kind in kinds:
        loaded = _attempt(getattr(transformers, kind), checkpoint, settings, asked)
        if loaded is not None:
            return loaded
    raise ModelUnreadable(
        f"{checkpoint.name} is a {checkpoint.config['model_type']}, which is no {' or '.join(kinds)}",
        path=str(checkpoint.folder / "config.json"), field="model_type",
    )  # fmt: skip


def _attempt(kind: Any, checkpoint: Checkpoint, settings: dict[str, Any], asked: str | None) -> Any:
    """(model, report), or None where the class does not take this architecture.

    The eager kernel stands in for one that the architecture lacks, unless the caller asked for that one.
    """
    folder = str(checkpoint.folder)
    try:
        with quiet():
            try:
                return kind.from_pretrained(folder, **settings)
            except ValueError as error:
                if "attention" not in str(error) or settings["attn_implementation"] == "eager":
                    raise
                if asked:
                    raise Unsupported("hf", f"attention={asked!r}", first_line(error)) from error
                return kind.from_pretrained(folder, **{**settings, "attn_implementation": "eager"})
    except ImportError as error:
        raise missing("hf", first_line(error)) from error
    except Unsupported:
        raise
    except Exception as error:
        if "Unrecognized configuration class" in str(error):
            return None
        if type(error).__name__ == "OutOfMemoryError":
            raise
        _refuse_remote_code(error)
        raise _unreadable(checkpoint, error) from error


def _complete(report: Any, checkpoint: Checkpoint, model: Any, optional: tuple[str, ...]) -> None:
    """Refuse a checkpoint that leaves weights of the model unset."""
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(optional))
    if missing:
        raise ModelUnreadable(
            f"{checkpoint.name} lacks {len(missing)} weights of {type(model).__name__}, as {missing[0]}",
            path=str(checkpoint.folder), field=missing[0],
            hint="the weights belong to another architecture, or the download is incomplete",
        )  # fmt: skip
    for name, stored, wanted in sorted(report["mismatched_keys"]):
        raise ModelUnreadable(
            f"{checkpoint.folder / 'config.json'} makes {name} {tuple(wanted)}, stored is {tuple(stored)}: "
            "config and weights do not belong together", path=str(checkpoint.folder), field=name,
        )  # fmt: skip
    # a head that this task does not ask for may lie idle; whole layers tell of another model
    if unused := sorted(key for key in report["unexpected_keys"] if any(map(str.isdigit, key.split(".")))):
        log.warning("%s: %d stored weights have no place in %s and are left out, as %s",
                    checkpoint.name, len(unused), type(model).__name__, unused[0])  # fmt: skip


def _unreadable(checkpoint: Checkpoint, error: Exception) -> ModelUnreadable:
    path = str(checkpoint.folder)
    return ModelUnreadable(f"{path} cannot be loaded: {first_line(error)}", path=path, field=_field(error))


def _field(error: Exception) -> str | None:
    """The key of a config that a message quotes, where it does."""
    words = str(error).split("'") if "config" in str(error).lower() else []
    return words[1] if len(words) > 2 else None


def _refuse_remote_code(error: Exception) -> None:
    if "trust_remote_code" in str(error):
        raise Unsupported(
            "hf", "a checkpoint that brings its own code",
            hint="pass trust_remote_code=True if you trust the source",
        ) from error  # fmt: skip


def first_line(error: BaseException) -> str:
    """What it says in one line; a key alone, or a colon at the line's end, says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, KeyError) or not lines:
        return f"{type(error).__name__} {error}".strip()
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' progress bars and advice while loading."""
    bars = need("hf", "transformers.utils.logging")
    level, shown = bars.get_verbosity(), bars.is_progress_bar_enabled()
    bars.set_verbosity(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.set_verbosity(level)
        if shown:
            bars.enable_progress_bar()


MARK = ".lora_"


def adapted(model: Any, options: Options) -> Any:
    """The model with its adapter: merged into plain weights, beside quantized ones."""
    name = options.adapter
    if name is None:
        return model
    peft = need("hf", "peft")
    _no_pickle(name, allowed=options.allow_pickle)
    try:
        both: Any = peft.PeftModel.from_pretrained(model, name)
        stored = set(peft.load_peft_weights(name, device="cpu"))
    except Exception as error:  # peft, safetensors and torch each have errors of their own
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelUnreadable(f"the adapter {name} cannot be read: {words}", path=name) from error
    _belongs(stored, set(peft.get_peft_model_state_dict(both)), name)
    if getattr(model, "is_quantized", False):
        return both.get_base_model()
    return both.merge_and_unload()


def _belongs(stored: set[str], wanted: set[str], name: str) -> None:
    """peft leaves out what it finds no place for, and sets to nothing what is not there."""
    odd = sorted(key for key in stored ^ wanted if MARK in key)
    if odd or not any(MARK in key for key in stored):
        what = "has no place in the model" if odd and odd[0] in stored else "is missing"
        raise ModelUnreadable(
            f"the adapter {name} does not belong to this model: {odd[0] if odd else MARK[1:]} {what}",
            path=name, field=odd[0] if odd else None,
        )  # fmt: skip


def _no_pickle(name: str, *, allowed: bool) -> None:
    folder = Path(name)
    if allowed or (folder / "adapter_model.safetensors").is_file():
        return
    if (folder / "adapter_model.bin").is_file():
        raise ModelUnreadable(
            f"{folder} holds a pickled adapter only, which can run code when loaded",
            path=str(folder / "adapter_model.bin"),
            hint="convert it to safetensors, or pass allow_pickle=True if you trust the source",
        )
