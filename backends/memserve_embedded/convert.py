"""GGUF to what starts fast: OpenVINO's own format, and a tokenizer.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memserve_embedded.engine import need

if TYPE_CHECKING:
    from pathlib import Path

_CONTROL = 3
"""GGUF's token type of special tokens."""


def prepare(folder: Path) -> None:
    """Turn the folder's one GGUF file into openvino_model.xml, tokenizer.json and about.json."""
    source = next(folder.glob("*.gguf"))
    genai = need("openvino_genai", "openvino-genai")
    genai.LLMPipeline(str(source), "CPU", enable_save_ov_model=True)
    _tokenizer(need("gguf").GGUFReader(str(source)), folder)
    for path in (source, *folder.glob("openvino_*tokenizer.*")):
        path.unlink()


def _tokenizer(reader: Any, folder: Path) -> None:
    tokenizers = need("tokenizers")
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
