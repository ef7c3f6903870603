"""Where a model's shapes come from: a file, a folder, the catalogue, the hub."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from memserve import files
from memserve.errors import ConnectionFailed, InvalidInput, ModelUnreadable, UnknownName
from memserve.missing import install_line
from memserve.model import catalogue, reader
from memserve.model.config import read_json
from memserve.model.recipes.index import Headers
from memserve.model.spec import ModelSpec, Quantization

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_NAME = 4096
_PATH = re.compile(r"^[./~\\]|^[A-Za-z]:\\|^[^/]+\.(gguf|json|safetensors)$", re.IGNORECASE)
"""What names a file or a folder, and nothing on a hub."""
PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co|modelscope\.cn/models)/"
    r"([\w.-]+/[\w.-]+(?::[\w.-]+)?)(?:[/?#].*)?"
)
"""A model's page on a hub, or Ollama's word for it, which names the model."""
FOREIGN = re.compile(r"(?:^|[-_./])(mlx|exl2|exl3|onnx|openvino|mlc|ct2)(?:[-_./]|$)", re.IGNORECASE)
"""In a name: a format of weights that no engine here reads."""
LEVEL = re.compile(r"(.+?)[-_:](I?Q\d\w*)", re.IGNORECASE)
"""Ollama's tag with a level, as llama3:70b-instruct-q4_K_M."""
POOLING = {
    "pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max", "pooling_mode_weightedmean_tokens": "weighted_mean",
}  # fmt: skip

GGUF = "gguf-q4_k_m"
"""What a repository of GGUF files is opened with unless told otherwise."""
FILE = re.compile(
    r"(?P<stem>.+?)[-_.](UD-)?(?P<tag>I?Q\d\w*|BF16|F16|MXFP4)(-\d+-of-\d+)?\.gguf", re.IGNORECASE
)
STORED_AS = {"nf4": "bitsandbytes", "int8": "bitsandbytes", "w4a16": "compressed-tensors",
             "w8a8": "compressed-tensors", "fp8": "compressed-tensors"}  # fmt: skip
"""`quant_method` that a checkpoint of this kind usually writes."""


def find(name_or_path: str | os.PathLike[str]) -> ModelSpec:
    """The model behind a name or a path."""
    text = os.fspath(name_or_path) if isinstance(name_or_path, str | os.PathLike) else None
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_NAME or "\0" in text:
        raise InvalidInput("a model is a name, a hub id, a folder or a config.json")
    page = PAGE.fullmatch(text.strip())
    text = page[1] if page else text
    readable(text)
    found = _at(text) if files.lies(text) else None
    return found or _known(text) or _quantized(text) or _remote(text)


def readable(name: str) -> None:
    """Raises where a name says that its weights are in a format which no engine here reads."""
    form = None if files.lies(name) or catalogue.find(name) else FOREIGN.search(name)
    if form is not None:
        words = f"{name[:80]!r} holds weights for {form[1].upper()}, which no engine here reads"
        base = catalogue.within(name)
        raise UnknownName(words, hint=f"name the model that it was made from{f', {base}' if base else ''}")


def _at(text: str) -> ModelSpec | None:
    from pathlib import Path

    path = Path(files.expanded(text))
    try:
        if path.is_dir():
            return _folder(path)
        return _file(path) if path.is_file() else None
    except OSError as error:
        raise InvalidInput(f"{str(path)[:80]}: {error.strerror}") from error


def _file(path: Path) -> ModelSpec:
    if path.suffix == ".gguf":
        return _gguf(path)
    if path.suffix == ".safetensors":
        return _folder(path.parent)
    return reader.from_config(read_json(path), path=str(path), name=path.parent.name or str(path))


def _folder(folder: Path, name: str = "", remote: Headers | None = None) -> ModelSpec:
    config = folder / "config.json"
    if not config.is_file():
        files = sorted(folder.glob("*.gguf"))
        if files:
            return _gguf(files[0])
        hint = "a model's folder has a config.json or a .gguf file"
        raise ModelUnreadable(
            f"{folder}: holds no config.json", path=str(folder), field="config.json", hint=hint
        )
    found = reader.from_folder(folder, read_json(config), str(config), name or str(folder), remote)
    tokenizer = folder / "tokenizer_config.json"
    mapped = read_json(tokenizer).get("auto_map") if tokenizer.is_file() else None
    code = "AutoTokenizer" in mapped if isinstance(mapped, dict) else bool(mapped)
    return replace(found, pooling=_pooling(folder) or found.pooling, tokenizer_code=code)


def _pooling(folder: Path) -> str | None:
    """How sentence-transformers pools this model, where the folder says so."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    about = read_json(path)
    written = about.get("pooling_mode")
    if isinstance(written, str):
        return written
    return next((mode for field, mode in POOLING.items() if about.get(field) is True), None)


def _gguf(path: Path) -> ModelSpec:
    from memserve.model.stored import headers

    try:
        return reader.from_gguf(headers.read(path), str(path))
    except files.STUMBLES as error:
        words = f"{path}: its metadata describe no model: {type(error).__name__}: {str(error)[:80]}"
        raise ModelUnreadable(words, path=str(path), hint="download the file again") from None


@lru_cache(maxsize=256)
def _known(name: str) -> ModelSpec | None:
    row = catalogue.find(name)
    if row is None:
        return None
    notes = () if catalogue.key(name) == catalogue.key(row.id) else (f"{name} means {row.id}",)
    found = reader.from_config(
        row.config, path=f"catalogue row {row.id}", name=row.id, notes=notes,
        source=f"catalogue {catalogue.dated()}: {row.source}",
    )  # fmt: skip
    return replace(found, pooling=row.pooling or found.pooling, tokenizer_code=bool(row.tokenizer_code),
                   scoring_tokens=row.scoring_tokens)  # fmt: skip


def _quantized(text: str) -> ModelSpec | None:
    """A checkpoint that the catalogue lists under its 16-bit model: that model's shapes, held as listed."""
    repository, _, tag = text.partition(":")
    listed = catalogue.made_from(repository)
    if listed is None:
        return _gguf_of(text)
    row, checkpoint = listed
    method, bits = _level(tag) if tag else (checkpoint.method, checkpoint.bits)
    if bits is None:
        return None
    written = checkpoint.format or STORED_AS.get(method, method)
    group = checkpoint.group_size or catalogue.usual_group(method)
    block = (checkpoint.block, checkpoint.block) if checkpoint.block else None
    stored = Quantization(method, written, bits, group, block=block)
    every = () if tag else tuple(one.method for one in row.checkpoints if one.id == checkpoint.id)
    levels = every if len(every) > 1 else ()
    held = " or ".join(levels) or f"{bits:g} bits as {method}"
    note = f"shapes of {row.id}, {held}: its own config was not read"
    return replace(find(row.id), id=checkpoint.id, quantization=stored, source=checkpoint.source,
                   levels=levels, notes=(note,))  # fmt: skip


def _gguf_of(text: str) -> ModelSpec | None:
    """A repository of GGUF files, or one such file, named after a model that is known: that model's shapes.

    `OWNER/NAME-GGUF:Q5_K_M` and `NAME-Q5_K_M.gguf` say how the weights are stored.
    """
    repository, _, tag = text.partition(":")
    file = FILE.fullmatch(text.rpartition("/")[2])
    bare = re.sub(r"([-_.](i1|qat))?[-_.]gguf$", "", repository.partition("/")[2], flags=re.IGNORECASE)
    if file is not None:
        repository, bare, tag = text, file["stem"], file["tag"]
    elif bare == repository.partition("/")[2]:
        return None
    level, bits = _level(tag)
    for known in (bare, bare.partition("_")[2], bare.replace("_", "/", 1)) if bits else ():
        row = catalogue.find(known) if known else None
        if row is not None and bits is not None:
            whose = "file" if file else "repository"
            note = f"shapes of {row.id}, by the {whose}'s name: its files were not read"
            stored = Quantization(level, level, bits)
            return replace(find(row.id), id=repository, quantization=stored, source=row.source, notes=(note,))
    return None


def _level(tag: str) -> tuple[str, float | None]:
    """memserve's name of a GGUF level and its bits; the L and XL of a level hold little more than its M."""
    word = tag.lower().removeprefix("ud-").replace("bf16", "f16")
    written = [f"gguf-{one}" for one in (word, re.sub("_x?l$", "_m", word), re.sub("_x?l$", "", word))]
    for level in written if tag else [GGUF]:
        if level in catalogue.formats():
            return level, float(catalogue.formats()[level]["bits"])
    return written[0], None


def _remote(name: str) -> ModelSpec:
    near = catalogue.suggestions(name)
    meant = f": did you mean {', '.join(near)}?" if near else ""
    if _PATH.search(name):
        raise UnknownName(f"no such file or folder: {name[:80]!r}", hint="or name the model: memserve models")
    if "/" not in name:
        tag = LEVEL.fullmatch(name)
        if tag and (row := catalogue.find(tag[1])):
            meant = f": say {row.id} --quantization {_level(tag[2])[0]}"
        others = "memserve models lists what is known by name; others go by hub id, OWNER/NAME, or folder"
        words = f"unknown model {name[:80]!r}{meant}"
        raise UnknownName(words, suggestions=near, hint=None if meant else others)
    from memserve.model import hub

    if not hub.is_id(name):
        raise UnknownName(f"no such file, and no hub id: {name[:80]!r}{meant}", suggestions=near)
    like = f"--like {catalogue.within(name) or 'KNOWN'} plans it by the shapes of a model that is known"
    folder = hub.cached(name)
    if folder is None and hub.available():
        try:
            folder = hub.fetched(name)
        except ConnectionFailed as error:
            raise ConnectionFailed(error.message, hint=f"give a folder or a config.json; {like}") from error
    if folder is None:
        raise UnknownName(
            f"unknown model {name[:80]!r}{meant}", suggestions=near,
            hint=f"for other models of the hub: {install_line('hub')}, or give a folder; {like}",
        )  # fmt: skip
    remote = partial(hub.headers, name) if hub.available() else None
    return replace(_folder(folder, name, remote), id=name, source=f"hub: {name}")
