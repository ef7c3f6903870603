"""GGUF to what starts fast: OpenVINO's own format, and a tokenizer.json."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from memserve.extras import need

_CONTROL = 3
"""GGUF's token type of special tokens."""


def prepare(folder: Path) -> None:
    """Turn the folder's one GGUF file into openvino_model.xml, tokenizer.json and about.json."""
    source = next(folder.glob("*.gguf"))
    genai = need("embedded", "openvino_genai", "openvino-genai")
    genai.LLMPipeline(str(source), "CPU", enable_save_ov_model=True)
    _keep_few_logits(folder)
    _tokenizer(need("embedded", "gguf").GGUFReader(str(source)), folder)
    for path in (source, *folder.glob("openvino_*tokenizer.*")):
        path.unlink()


def _keep_few_logits(folder: Path) -> None:
    """Give the graph an input `keep`: the head computes logits for so many of the last positions only."""
    openvino, op = need("embedded", "openvino"), need("embedded", "openvino.opset13")
    raw, path = folder / "openvino_model.xml", folder / "model.xml"
    graph = openvino.Core().read_model(str(raw))
    head = graph.outputs[0].node.input_value(0).node
    keep = op.parameter([1], np.int64, name="keep")
    keep.output(0).get_tensor().set_names({"keep"})
    one, end = op.constant([1]), op.constant([sys.maxsize])
    last = op.slice(head.input_value(0), op.negative(keep), end, one, one)
    head.input(0).replace_source_output(last.output(0))
    graph.add_parameters([keep])
    graph.validate_nodes_and_infer_types()
    openvino.save_model(graph, str(path), compress_to_fp16=False)
    del graph, head, last
    for old in (raw, raw.with_suffix(".bin")):
        old.unlink()


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
