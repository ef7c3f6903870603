"""A random Llama that sees pictures (Idefics 3, as SmolVLM), as llama.cpp reads it: words and eyes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from extras import need

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
FRAMES = ["<fake_token_around_image>", "<global-img>"]
"""What llama.cpp writes round the tiles of a picture; it looks up two line ends, too."""
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
    "{% if p['type'] == 'text' %}{{ p['text'] }}{% else %}{{ '<image>' }}{% endif %}{% endfor %}{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
WIDTH, WIDE, HEADS, LAYERS, EYES = 128, 256, 4, 2, 64
"""Of the words; the last of the eyes."""


def letters() -> list[str]:
    """A sign for each byte, as GPT-2's tokenizer writes them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    known = {byte: chr(byte) for byte in shown} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}
    return [known[byte] for byte in range(256)]


def text(path: Path, chance: np.random.Generator) -> Path:
    gguf = need("gguf", "compress")
    words = [*SPECIAL, *FRAMES, *letters(), "ĊĊ"]
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, value in {
        "context_length": 1024, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": WIDE,
        "head_count": HEADS, "head_count_kv": 2, "layer_norm_rms_eps": 1e-6, "vocab_size": len(words),
        "rope_dimension_count": WIDTH // HEADS, "tokenizer_model": "gpt2", "tokenizer_pre": "gpt-2",
        "token_list": words, "token_types": [3] * (len(words) - 257) + [1] * 257, "token_merges": ["Ċ Ċ"],
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "chat_template": TEMPLATE,
    }.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    shapes = {"token_embd": (len(words), WIDTH), "output": (len(words), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in {
            "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH // 2, WIDTH), "attn_v": (WIDTH // 2, WIDTH),
            "attn_output": (WIDTH, WIDTH), "ffn_gate": (WIDE, WIDTH), "ffn_up": (WIDE, WIDTH),
            "ffn_down": (WIDTH, WIDE), "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,),
        }.items()}  # fmt: skip
    marks = len(words) - 257
    heard = {2, *range(marks + 32, marks + 127)}
    faint = [place for place in range(len(words)) if place not in heard]
    named = ((f"{name}.weight", shape) for name, shape in shapes.items())
    return _written(writer, named, path, chance, faint)


def eyes(path: Path, chance: np.random.Generator) -> Path:
    gguf = need("gguf", "compress")
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", "idefics3")
    for name, value in {
        "projection_dim": WIDTH, "image_size": 32, "patch_size": 8, "embedding_length": EYES,
        "block_count": 2, "feed_forward_length": 96, "attention.head_count": 2,
        "projector.scale_factor": 2, "preproc_image_size": 64,
    }.items():  # fmt: skip
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)
    shapes: dict[str, tuple[int, ...]] = {
        "mm.model.fc.weight": (WIDTH, EYES * 4), "v.position_embd.weight": (16, EYES),
        "v.patch_embd.weight": (EYES, 3, 8, 8), "v.patch_embd.bias": (EYES,),
        "v.post_ln.weight": (EYES,), "v.post_ln.bias": (EYES,),
    }  # fmt: skip
    for layer in range(2):
        for name, wide, narrow in [*((f"attn_{part}", EYES, EYES) for part in ("q", "k", "v", "out")),
                                   ("ffn_up", 96, EYES), ("ffn_down", EYES, 96)]:  # fmt: skip
            shapes[f"v.blk.{layer}.{name}.weight"] = (wide, narrow)
            shapes[f"v.blk.{layer}.{name}.bias"] = (wide,)
        for name in ("ln1", "ln2"):
            shapes |= {f"v.blk.{layer}.{name}.{part}": (EYES,) for part in ("weight", "bias")}
    return _written(writer, shapes.items(), path, chance)


def _written(writer: Any, shapes: Any, path: Path, chance: np.random.Generator,
             faint: Sequence[int] = ()) -> Path:  # fmt: skip
    """Norms are one, biases small, the rest wide enough that answers differ; they are letters, or end."""
    for name, shape in shapes:
        bias = name.endswith("bias")
        made = chance.normal(0, 0.02 if bias else 0.2, shape).astype(np.float32)
        if name == "output.weight":
            made[list(faint)] *= 0.01
        writer.add_tensor(name, made if bias or len(shape) > 1 else np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def vision(folder: Path) -> tuple[Path, Path]:
    """Both files of a model that sees."""
    chance = np.random.default_rng(0)
    return text(folder / "model.gguf", chance), eyes(folder / "mmproj-model.gguf", chance)
