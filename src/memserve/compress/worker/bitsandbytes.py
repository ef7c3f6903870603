"""nf4 and int8 by bitsandbytes, where loading is making."""

from __future__ import annotations

from typing import Any

from memserve.compress.worker.model import architecture, copy_rest, left_alone, opened


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Loaded in few bits, saved as loaded; lm_head and the like stay in 16 bits."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    with torch.device("meta"):
        kept = left_alone(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job["model"])),
                          job["left_alone"])  # fmt: skip
    dtype = architecture(job["model"]).get("dtype") or "bfloat16"
    if job["kind"] == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype), llm_int8_skip_modules=kept,
        )  # fmt: skip
    else:
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    opened(job["model"], quantization_config=config).save_pretrained(job["target"])
    copy_rest(job["model"], job["target"])
    return {"left_alone": kept}
