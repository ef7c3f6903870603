"""Random models of many architectures that see pictures, and their processors; nothing is fetched."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any

import tiny_hf
from extras import need

if TYPE_CHECKING:
    from pathlib import Path

MARKS = {
    "image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>", "video_token": "<video>",
    "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<image>",
    "vision_start_token": "<vis>", "vision_end_token": "</vis>", "image_break_token": "<brk>",
    "image_end_token": "<end>",
}  # fmt: skip
LETTERS = [chr(c) for c in range(97, 123)] + list("0123456789.,?!")
VOCABULARY = [*tiny_hf.SPECIAL, *MARKS.values(), "user", "assistant", "system", *tiny_hf.WORDS, *LETTERS]
ID = {word: place for place, word in enumerate(dict.fromkeys(VOCABULARY))}
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' ' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
    "{% if p['type'] == 'text' %}{{ p['text'] }}{% else %}{{ 'MARK' }}{% endif %}{% endfor %}{% endif %}"
    "{{ ' ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)
TEXT = {**tiny_hf.SIZES, "max_position_embeddings": 1024}
PLAIN = {name: TEXT[name] for name in TEXT if name not in ("head_dim", "num_key_value_heads")}
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
IMAGE = {"image_token_id": ID["<image>"], "image_token_index": ID["<image>"]}
SQUARE = {"height": 32, "width": 32}
CROPPED = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}


def picture(seed: int, width: int, height: int, colours: str = "RGB") -> Any:
    """A random picture."""
    count = width * height * len(colours)
    return need("PIL.Image", "hf").frombytes(colours, (width, height), Random(seed).randbytes(count))


def tokenizer(mark: str | None) -> Any:
    """Words; without a mark for pictures no chat template, and an end after each text, as captioners have."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel(ID, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    if mark is None:
        plain.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    named = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=plain, model_max_length=1024, extra_special_tokens=MARKS,
        **{f"{name}_token": word for name, word in named.items()},
    )  # fmt: skip
    fast.chat_template = TEMPLATE.replace("MARK", mark) if mark else None
    return fast


def saved(folder: Path, name: str, config: Any, *parts: Any) -> Path:
    """Random weights wide enough that answers differ, and what reads pictures for them."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
    for part in (model, *parts):
        part.save_pretrained(folder)
    return folder


def apart(folder: Path, name: str, config: Any, kind: str, image: Any, words: Any, **own: Any) -> Path:
    """Saved in parts: the processors of models that see videos, too, cannot be made without torchvision."""
    made = saved(folder, name, config, image, words)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": kind, **own}))
    return made


def qwen(folder: Path, kind: str, vision: dict[str, Any]) -> Path:
    import transformers

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    shared = {"depth": 3, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2}
    marks = {"video_token_id": ID["<video>"], "vision_start_token_id": ID["<vis>"]}
    config = getattr(transformers, f"{kind}Config")(
        text_config={**TEXT, "rope_parameters": rope}, vision_config={"hidden_size": 32, **shared, **vision},
        image_token_id=ID["<image>"], vision_end_token_id=ID["</vis>"], **marks,
    )  # fmt: skip
    image = transformers.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=256, max_pixels=4096
    )
    words = tokenizer("<vis><image></vis>")
    return apart(folder, f"{kind}ForConditionalGeneration", config, f"{kind}Processor", image, words)


def qwen2(folder: Path) -> Path:
    return qwen(folder, "Qwen2VL", {"embed_dim": 32, "mlp_ratio": 2})


def qwen2_5(folder: Path) -> Path:
    own = {"window_size": 32, "fullatt_block_indexes": [1]}
    return qwen(folder, "Qwen2_5_VL", {"intermediate_size": 48, "out_hidden_size": 32, **own})


def qwen3(folder: Path) -> Path:
    """Its vision part speaks to several layers of the text part."""
    own = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64}
    return qwen(folder, "Qwen3VL", {"intermediate_size": 48, "out_hidden_size": 32, **own})


def gemma3(folder: Path) -> Path:
    """A picture's tokens see each other in both directions, whatever the window."""
    import transformers

    layers = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}
    config = transformers.Gemma3Config(
        text_config={**TEXT, **layers, "query_pre_attn_scalar": 8}, mm_tokens_per_image=4,
        vision_config={**VISION, "model_type": "siglip_vision_model"},
        boi_token_index=ID["<boi>"], eoi_token_index=ID["<eoi>"], **IMAGE,
    )  # fmt: skip
    image, words = transformers.Gemma3ImageProcessorPil(size=SQUARE), tokenizer("<boi>")
    both = transformers.Gemma3Processor(image, words, chat_template=words.chat_template, image_seq_length=4)
    return saved(folder, "Gemma3ForConditionalGeneration", config, both)


def llava(folder: Path) -> Path:
    import transformers

    config = transformers.LlavaConfig(
        text_config={**TEXT, "model_type": "llama"}, vision_feature_layer=-2,
        vision_config={**VISION, "model_type": "clip_vision_model"}, image_seq_length=16, **IMAGE,
    )  # fmt: skip
    words = tokenizer("<image>")
    both = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(**CROPPED), words, patch_size=8, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=words.chat_template,
    )  # fmt: skip
    return saved(folder, "LlavaForConditionalGeneration", config, both)


def onevision(folder: Path) -> Path:
    """A picture is cut into tiles by its shape; several pictures are not."""
    import transformers

    tiles = {"image_grid_pinpoints": [[32, 32], [32, 64], [64, 32], [64, 64]]}
    config = transformers.LlavaOnevisionConfig(
        text_config={**TEXT, "model_type": "qwen2"}, vision_feature_layer=-1, video_token_index=ID["<video>"],
        vision_config={**VISION, "model_type": "siglip_vision_model"}, vision_feature_select_strategy="full",
        **IMAGE, **tiles,
    )  # fmt: skip
    image = transformers.LlavaOnevisionImageProcessorPil(size=SQUARE, **tiles)
    own = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    name = "LlavaOnevisionForConditionalGeneration"
    return apart(folder, name, config, "LlavaOnevisionProcessor", image, tokenizer("<image>"), **own)


def idefics3(folder: Path, text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION) -> Path:
    import transformers

    config = transformers.Idefics3Config(
        text_config={**text, "model_type": "llama"}, image_token_id=ID["<image>"], scale_factor=2,
        vision_config={**vision, "model_type": "idefics3_vision"}, pad_token_id=0,
    )  # fmt: skip
    image = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    words = tokenizer("<image>")
    both = transformers.Idefics3Processor(image, words, image_seq_len=4, chat_template=words.chat_template)
    return saved(folder, "Idefics3ForConditionalGeneration", config, both)


def internvl(folder: Path) -> Path:
    import transformers

    sides = {"image_size": [32, 32], "patch_size": [8, 8]}
    config = transformers.InternVLConfig(
        text_config={**TEXT, "model_type": "qwen2"}, vision_config={**VISION, **sides},
        image_token_id=ID["<image>"], image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    image = transformers.GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, max_patches=4)
    words, name = tokenizer("<image>"), "InternVLForConditionalGeneration"
    return apart(folder, name, config, "InternVLProcessor", image, words, image_seq_length=4)


def mistral3(folder: Path) -> Path:
    """Its processor cannot be made without torchvision."""
    import transformers

    config = transformers.Mistral3Config(
        text_config={**TEXT, "model_type": "mistral"}, spatial_merge_size=2, vision_feature_layer=-1,
        vision_config={**VISION, "model_type": "pixtral", "head_dim": 16}, **IMAGE,
    )  # fmt: skip
    image = transformers.PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size=8)
    own = {"patch_size": 8, "spatial_merge_size": 2, "image_token": "<image>", "image_break_token": "<brk>"}
    own["image_end_token"] = "<end>"
    name = "Mistral3ForConditionalGeneration"
    return apart(folder, name, config, "PixtralProcessor", image, tokenizer("<image>"), **own)


def blip(folder: Path) -> Path:
    import transformers

    text = {**PLAIN, "sep_token_id": 2, "encoder_hidden_size": 32, "projection_dim": 32}
    config = transformers.BlipConfig(
        text_config=text, vision_config={**VISION, "projection_dim": 32}, projection_dim=32
    )
    config.text_config.encoder_hidden_size = 32
    image = transformers.BlipImageProcessorPil(size=SQUARE)
    both = transformers.BlipProcessor(image, tokenizer(None))
    return saved(folder, "BlipForConditionalGeneration", config, both)


def git(folder: Path) -> Path:
    import transformers

    config = transformers.GitConfig(vision_config=VISION, **PLAIN)
    both = transformers.GitProcessor(transformers.CLIPImageProcessorPil(**CROPPED), tokenizer(None))
    return saved(folder, "GitForCausalLM", config, both)


def encoder_decoder(folder: Path) -> Path:
    """A picture goes in and no word."""
    import transformers

    sizes = {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    words = transformers.GPT2Config(add_cross_attention=True, is_decoder=True, **sizes, **ends)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION), words, decoder_start_token_id=1, pad_token_id=0, eos_token_id=2
    )
    image = transformers.ViTImageProcessorPil(size=SQUARE)
    return saved(folder, "VisionEncoderDecoderModel", config, image, tokenizer(None))


def wide(folder: Path) -> Path:
    """With heads of 32, the least that vLLM takes on a CPU."""
    text = {**TEXT, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "num_hidden_layers": 2}
    return idefics3(folder, text, {**VISION, "hidden_size": 64, "intermediate_size": 96})


CHAT = {
    "qwen2": qwen2, "qwen2_5": qwen2_5, "qwen3": qwen3, "gemma3": gemma3, "llava": llava,
    "onevision": onevision, "idefics3": idefics3, "internvl": internvl,
}  # fmt: skip
CAPTION = {"blip": blip, "git": git, "encoder_decoder": encoder_decoder}


def image(shown: Any) -> dict[str, Any]:
    """A picture as a part of a message."""
    return {"type": "image_url", "image_url": {"url": shown}}


def text(words: str) -> dict[str, Any]:
    """Words as a part of a message."""
    return {"type": "text", "text": words}


def user(*parts: Any) -> list[dict[str, Any]]:
    """One message."""
    return [{"role": "user", "content": list(parts)}]


class Reference:
    """transformers alone: its processor, its `generate`, one prompt at a time."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        from memserve_hf.decoding import sight
        from memserve_hf.opening.checkpoint import Checkpoint, read_json
        from memserve_hf.options import Options

        words = transformers.AutoTokenizer.from_pretrained(folder)
        found = Checkpoint(folder, str(folder), read_json(folder / "config.json"), {})
        self.words, self.torch = words, torch
        self.processor = sight.load_processor(found, Options(), words)
        kind = transformers.AutoModelForImageTextToText
        self.model = kind.from_pretrained(folder, dtype=torch.float32).eval()

    def inputs(self, talk: list[dict[str, Any]]) -> dict[str, Any]:
        """What the processor makes of a conversation."""
        parts = [part for message in talk for part in message["content"] if isinstance(part, dict)]
        shown = [part["image_url"]["url"].convert("RGB") for part in parts if part["type"] == "image_url"]
        if self.words.chat_template is None:
            said = [part["text"] for part in parts if part["type"] == "text"]
            more = {"text": said[0]} if said else {}
            made = self.processor(images=shown[0], return_tensors="pt", **more)
        else:
            plain = [{**message, "content": _unseen(message["content"])} for message in talk]
            words = self.words.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
            more = {"add_special_tokens": False, "return_tensors": "pt"}
            made = self.processor(text=[words], **({"images": [shown]} if shown else {}), **more)
        return {name: one for name, one in made.items() if isinstance(one, self.torch.Tensor)}

    def answer(self, talk: list[dict[str, Any]], most: int) -> tuple[list[int], int]:
        """The tokens that follow, and how many there were before them."""
        inputs = self.inputs(talk)
        inner = getattr(self.model, "model", None)
        if hasattr(inner, "rope_deltas"):
            inner.rope_deltas = None
        before = inputs["input_ids"].shape[1] if "input_ids" in inputs else 1
        with self.torch.inference_mode():
            made = self.model.generate(**inputs, max_new_tokens=most, do_sample=False)[0].tolist()
        if "input_ids" in inputs and type(self.model).__name__.startswith("Blip"):
            return made[before - 1 :], before  # it takes the end off the prompt
        return made[before:], before


def _unseen(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [{"type": "image"} if part["type"] == "image_url" else part for part in content]
