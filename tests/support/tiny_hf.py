"""Random models of many architectures, small enough to be made for each test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

WORDS = [
    "the",
    "river",
    "runs",
    "past",
    "an",
    "old",
    "stone",
    "bridge",
    "while",
    "seven",
    "green",
    "lamps",
    "stand",
    "under",
    "a",
    "window",
]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)
SIZES = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "head_dim": 8,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip


def tokenizer(folder: Path, *, template: str | None = TEMPLATE, bos: bool = False) -> Any:
    """A word-level tokenizer; unknown words become bytes of the alphabet."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(97, 123)] + list("0123456789.,?! ")
    vocabulary = {
        token: i for i, token in enumerate([*SPECIAL, "user", "assistant", "system", *WORDS, *letters])
    }
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        plain.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        cls_token="<s>", sep_token="</s>", mask_token="<mask>", model_max_length=256,
    )  # fmt: skip
    fast.chat_template = template
    fast.save_pretrained(folder)
    return fast


def causal(folder: Path, kind: str = "Llama", *, template: str | None = TEMPLATE, bos: bool = False,
           dtype: str = "float32", **changes: Any) -> Path:  # fmt: skip
    """A random causal model with weights wide enough that answers differ."""
    import torch
    import transformers

    tokenizer(folder, template=template, bos=bos)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **changes})
    names = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM", "Llama4Text": "Llama4ForCausalLM"}
    name = names.get(kind, f"{kind}ForCausalLM")
    torch.manual_seed(0)
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def encoder(folder: Path, kind: str = "Bert", head: str = "Model", **changes: Any) -> Path:
    """A random encoder; its tokenizer has no chat template, which would make it one of messages."""
    import torch
    import transformers

    tokenizer(folder, template=None, bos=True)
    sizes = {key: SIZES[key] for key in SIZES if key not in ("head_dim", "num_key_value_heads")}
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **changes})
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}{head}")(config)
    model.save_pretrained(folder)
    return folder


def modules(folder: Path, *kinds: str, pooling: dict[str, Any] | None = None,
            prompts: dict[str, str] | None = None) -> None:  # fmt: skip
    """sentence-transformers' module files beside an encoder."""
    rows = []
    for index, kind in enumerate(kinds):
        path = "" if kind == "Transformer" else f"{index}_{kind}"
        rows.append(
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        )
        (folder / path).mkdir(exist_ok=True)
        if kind == "Pooling":
            config = {
                "word_embedding_dimension": SIZES["hidden_size"],
                **(pooling or {"pooling_mode_mean_tokens": True}),
            }
            (folder / path / "config.json").write_text(json.dumps(config))
        if kind == "Dense":
            _dense(folder / path)
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 64, "do_lower_case": False})
    )
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}}))


def _dense(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    config = {"in_features": 32, "out_features": 16, "bias": True,
              "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {"linear.weight": torch.randn(16, 32), "linear.bias": torch.randn(16)},
        str(folder / "model.safetensors"),
    )


def greedy(folder: Path, prompts: list[list[int]], tokens: int, dtype: str = "float32") -> list[list[int]]:
    """What transformers' own generate says, prompt by prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    answers = []
    for prompt in prompts:
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=tokens, do_sample=False, eos_token_id=2, pad_token_id=0
        )
        answers.append(out[0, len(prompt) :].tolist())
    return answers
