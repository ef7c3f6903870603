"""Writes the toy's checkpoint folder: a byte tokenizer and a chat template, the suite's oracle."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

SPECIAL = ["<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
CONFIG = {
    "architectures": ["ToyForCausalLM"], "model_type": "llama", "dtype": "float16", "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "vocab_size": 261, "max_position_embeddings": 512,
}  # fmt: skip
"""What the planner reads: the toy has no weights, but it is planned as if it had these."""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level tokenizers."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{byte: chr(byte) for byte in plain}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}


def main(folder: Path) -> None:
    """Byte b is token b; the special tokens follow."""
    letters = byte_letters()
    tokenizer = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 256)]
    )
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    words = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
    prompts = {"prompts": {"query": "search for ", "document": "a text about "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts) + "\n")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(words, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / "checkpoint")
